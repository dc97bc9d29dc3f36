"""The database: opened, checked, upgraded; one writer that commits in groups, and readers that never wait for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy import exc as sqlalchemy_errors

from runnerhub.backends._sql.schema import HEAD
from runnerhub.model.errors import ConfigurationError, RunnerHubError, SchemaError, StorageFullError, UnavailableError

T = TypeVar("T")

READERS = 4
BUSY_SECONDS = 30
SYNCHRONOUS = ("FULL", "NORMAL")
_MIGRATIONS = Path(__file__).with_name("migrations")
_FULL, _NOT_A_DATABASE = sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOTADB


def path_of(url: str, data_dir: Path) -> Path:
    """The file of a URL: `sqlite`, `sqlite:///relative.db`, `sqlite:////absolute.db`. Raises `ConfigurationError`."""
    if url in ("", "sqlite"):
        return data_dir / "runnerhub.db"
    expected = "sqlite:////absolute/path.db, sqlite:///relative/path.db, or sqlite for a file in data_dir"
    if not url.startswith("sqlite:///"):
        raise ConfigurationError("Not a SQLite URL", field="storage", value=url, expected=expected)
    path = url.removeprefix("sqlite:///")
    if path in ("", ":memory:") or "?" in path:
        remedy = f"{expected} (for a storage in memory: memory)"
        raise ConfigurationError("Not a file", field="storage", value=url, expected=remedy)
    return Path(path)


def make_file(path: Path) -> None:
    """See to it that the file is there, for its owner alone. Raises `UnavailableError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise UnavailableError(
            f"storage {str(path)!r} cannot be opened ({error.strerror}); "
            "name a file in a writable directory (storage), or another data_dir"
        ) from error


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as the project's own."""
    try:
        yield
    except (sqlite3.Error, sqlalchemy_errors.DBAPIError) as error:
        raise _translate(error, path) from error


def _translate(error: Exception, path: Path) -> RunnerHubError:
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF
    if code == _FULL:
        return StorageFullError(f"no room for the storage {str(path)!r}: make room on its disk; reads still work")
    if code == _NOT_A_DATABASE:
        return UnavailableError(f"storage {str(path)!r} is no SQLite database; name another file")
    return UnavailableError(f"storage {str(path)!r} does not answer: {original}")


class _Pending(Generic[T]):
    """What a caller wants written, and what became of it."""

    __slots__ = ("done", "error", "result", "turn", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.turn = anyio.Event()
        self.done = False
        self.result: T | None = None
        self.error: BaseException | None = None


class Database:
    """One SQLite file. `before` and `after` bracket every group of writes; `lost` is told when a group was rolled back."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self.path, self._synchronous = path, synchronous
        self._engine: Engine | None = None
        self._writer: Any = None
        self._readers: list[PoolProxiedConnection] = []
        self._leader: _Pending[Any] | None = None
        self._pending: list[_Pending[Any]] = []
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(READERS)
        self.before: Callable[[sqlite3.Connection], None] = _nothing
        self.after: Callable[[sqlite3.Connection], None] = _nothing
        self.lost: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        """Open and upgrade. Raises `UnavailableError` and `SchemaError`."""
        await anyio.to_thread.run_sync(self._open, limiter=self._writing)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close, limiter=self._writing)

    @property
    def engine(self) -> Engine:
        """For listings, written with SQLAlchemy."""
        if self._engine is None:
            raise UnavailableError(f"storage {str(self.path)!r} is not open; use `async with`")
        return self._engine

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some writing, durable when this returns. Whoever comes while a group is written rides in the next one.

        `work` checks before it writes: an error that it raises must leave nothing behind.
        """
        mine: _Pending[T] = _Pending(work)
        self._pending.append(mine)
        if self._leader is None:
            self._leader = mine
        else:
            await self._turn(mine)
        if not mine.done:
            group, self._pending = self._pending, []
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._commit, group, limiter=self._writing)
            finally:
                for one in group:
                    one.turn.set()
                self._hand_on()  # behind them, so that what they write next rides along
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[return-value]

    async def _turn(self, mine: _Pending[Any]) -> None:
        """Wait until it is written, or until it is the one to write."""
        came = False
        try:
            await mine.turn.wait()
            came = True
        finally:
            if not came:  # cancelled
                if mine in self._pending:
                    self._pending.remove(mine)
                if self._leader is mine:
                    self._hand_on()

    def _hand_on(self) -> None:
        self._leader = self._pending[0] if self._pending else None
        if self._leader is not None:
            self._leader.turn.set()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read on a connection of its own; a writer never stands in the way."""
        return await anyio.to_thread.run_sync(self._read, work, limiter=self._reading)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated(self.path):
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self.engine.raw_connection()
            try:
                return work(connection.driver_connection)  # type: ignore[arg-type]
            finally:
                self._readers.append(connection)

    def _commit(self, group: list[_Pending[Any]]) -> None:
        if self._attempt(group) or len(group) == 1:
            return
        for one in group:  # one of them spoilt it: each on its own
            one.error = one.result = None
            self._attempt([one])

    def _attempt(self, group: list[_Pending[Any]]) -> bool:
        connection: sqlite3.Connection = self._writer.driver_connection
        error: Exception | None = None
        try:
            connection.execute("begin immediate")
            self.before(connection)
            for one in group:
                try:
                    one.result = one.work(connection)
                except RunnerHubError as refused:
                    one.error = refused
            self.after(connection)
            connection.execute("commit")
        except Exception as caught:  # noqa: BLE001  (handed to every caller below)
            error = _translate(caught, self.path) if isinstance(caught, sqlite3.Error) else caught
            error.__cause__ = caught if error is not caught else None
            if connection.in_transaction:
                connection.execute("rollback")
            self.lost()
        for one in group:
            one.done = True
            one.error = error or one.error
        return error is None

    def _open(self) -> None:
        make_file(self.path)
        engine = create_engine(
            f"sqlite:///{self.path}",
            pool_size=READERS + 1,
            max_overflow=2,
            connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS, "isolation_level": None},
        )
        event.listen(engine, "connect", self._configure)
        self._engine = engine
        try:
            with translated(self.path):
                upgrade(engine, self.path)
                self._writer = engine.raw_connection()
        except BaseException:
            engine.dispose()
            self._engine = None
            raise

    def _configure(self, connection: sqlite3.Connection, _: object) -> None:
        for pragma in ("journal_mode = wal", f"synchronous = {self._synchronous}", "wal_autocheckpoint = 4000"):
            connection.execute(f"pragma {pragma}")

    def _close(self) -> None:
        for connection in [*self._readers, *([self._writer] if self._writer else [])]:
            connection.close()
        self._readers, self._writer = [], None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


def _nothing(_: sqlite3.Connection) -> None:
    """Nothing to bracket."""


def revision(engine: Engine, path: Path) -> str | None:
    """The revision of a database, `None` for an empty one. Raises `SchemaError` for somebody else's."""
    with engine.connect() as connection:
        names = {name for (name,) in connection.exec_driver_sql("select name from sqlite_master where type = 'table'")}
        if "alembic_version" not in names:
            if names - {"sqlite_sequence"}:
                raise SchemaError(f"{str(path)!r} is a database of something else; name another file as storage")
            return None
        found = connection.exec_driver_sql("select version_num from alembic_version").fetchall()
    return found[0][0] if found else None


def upgrade(engine: Engine, path: Path) -> tuple[str | None, str]:
    """Bring a database to the newest revision, whole or not at all. Returns the old and the new one."""
    old = revision(engine, path)
    if old == HEAD:
        return old, HEAD
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if old is not None and old not in known:
        raise SchemaError(
            f"{str(path)!r} has schema {old}, which is newer than this runnerhub's {HEAD}: "
            "upgrade runnerhub, or name another storage"
        )
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        connection.exec_driver_sql("begin immediate")  # others wait here, and then find nothing to do
        try:
            command.upgrade(config, "head")
            connection.exec_driver_sql("commit")
        except BaseException:
            connection.exec_driver_sql("rollback")
            raise
    return old, HEAD
