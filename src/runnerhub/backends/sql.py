"""Storage and queue in a SQL database: one SQLite file, durable, with nothing to install."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import create_engine

from runnerhub.backends._sql import database as _database
from runnerhub.backends._sql.database import SYNCHRONOUS, Database, make_file, path_of, translated
from runnerhub.backends._sql.queue import SQLQueue
from runnerhub.backends._sql.stores import Events, Jobs, Logs, Runners, Settings
from runnerhub.model.config import BackendOptions
from runnerhub.model.errors import ConfigurationError

__all__ = ["SQLQueue", "SQLStorage", "upgrade"]


class SQLStorage:
    """A `StorageBackend` and, by `queue()`, a `QueueBackend` in the same transactions.

    `options.url` names the file (`sqlite:////absolute/path.db`; by default `runnerhub.db` in the data directory), the
    setting `synchronous` is FULL (what is acknowledged survives a power cut) or NORMAL (it survives a crash).
    """

    durable = True

    def __init__(self, options: BackendOptions) -> None:
        known = {"synchronous"}
        for name in options.settings:
            if name not in known:
                expected = ", ".join(sorted(known))
                raise ConfigurationError("Unknown key", field=f"settings.sqlite.{name}", value=name, expected=expected)
        synchronous = str(options.settings.get("synchronous", "FULL")).upper()
        if synchronous not in SYNCHRONOUS:
            expected = " or ".join(SYNCHRONOUS)
            raise ConfigurationError("Unknown value", field="settings.sqlite.synchronous", value=synchronous, expected=expected)
        self._database = Database(path_of(options.url, options.data_dir), synchronous)
        self._queue = SQLQueue(self._database, options)
        self.jobs = Jobs(self._database, self._queue)
        self.runners = Runners(self._database)
        self.events = Events(self._database)
        self.logs = Logs(self._database)
        self.settings = Settings(self._database)
        self._database.before = self._queue.refresh

        def flush(connection: sqlite3.Connection) -> None:
            self.jobs.flush(connection)
            self._queue.flush(connection)

        def forget() -> None:
            self.jobs.forget()
            self._queue.forget()

        self._database.after, self._database.lost = flush, forget

    async def __aenter__(self) -> Self:
        """Open, and upgrade an older schema. Raises `UnavailableError`, and `SchemaError` for a newer one."""
        await self._database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self._database.__aexit__(kind, error, trace)

    def queue(self) -> SQLQueue:
        """The queue in the same database."""
        return self._queue

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path


def upgrade(options: BackendOptions) -> tuple[str | None, str]:
    """Bring the database to the newest revision. Returns the old one (`None`: it was empty) and the new one."""
    path = path_of(options.url, options.data_dir)
    make_file(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    try:
        with translated(path):
            return _database.upgrade(engine, path)
    finally:
        engine.dispose()
