"""The SQL backend passes the suites, and does what only a database must."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from random import Random

import anyio
import pytest
from alembic import command
from attrs import evolve
from sqlalchemy import MetaData, create_engine

from runnerhub import ConfigurationError, JobQuery, SchemaError, StorageFullError, UnavailableError
from runnerhub.backends._sql import queue as sql_queue
from runnerhub.backends._sql import schema
from runnerhub.backends._sql.schema import HEAD
from runnerhub.backends.sql import SQLQueue, SQLStorage, upgrade
from runnerhub.events import JobQueued
from runnerhub.model.change import JobChange
from runnerhub.model.config import BackendOptions
from runnerhub.model.log import LogChunk, LogPosition
from runnerhub.model.queue import Control, Wanted
from runnerhub.testing import FakeClock, QueueSuite, StorageSuite
from runnerhub.testing.samples import NOW, entry, job


class TestSQLStorage(StorageSuite):
    @pytest.fixture
    async def storage(self, options: BackendOptions) -> AsyncIterator[SQLStorage]:
        async with SQLStorage(options) as storage:
            yield storage


class TestSQLQueue(QueueSuite):
    @pytest.fixture
    async def queue(self, options: BackendOptions) -> AsyncIterator[SQLQueue]:
        async with SQLStorage(options) as storage, storage.queue() as queue:
            yield queue


# ------------------------------------------------------------------------------------------- what only a database must


async def _with(options: BackendOptions, **more: object) -> SQLStorage:
    return SQLStorage(evolve(options, **more))


@pytest.fixture
def options(tmp_path: Path) -> BackendOptions:
    return BackendOptions(data_dir=tmp_path / "data")


def change(number: int = 1) -> JobChange:
    one = job(number)
    return JobChange(job=one, event=JobQueued(at=NOW, job_id=one.id))


@pytest.mark.anyio
async def test_a_new_database_has_the_newest_schema_and_is_private(options: BackendOptions) -> None:
    async with SQLStorage(options) as storage:
        assert storage.path.stat().st_mode & 0o077 == 0
        assert storage.path.parent.stat().st_mode & 0o077 == 0
    assert upgrade(options) == (HEAD, HEAD)


def test_the_migrations_lead_to_the_schema(options: BackendOptions) -> None:
    assert upgrade(options) == (None, HEAD)
    engine = create_engine(f"sqlite:///{options.data_dir}/runnerhub.db")
    found = MetaData()
    found.reflect(engine)
    found.remove(found.tables["alembic_version"])

    def shape(metadata: MetaData) -> dict[str, object]:
        return {
            table.name: (
                {(column.name, str(column.type), column.nullable, column.primary_key) for column in table.columns},
                {(index.name, tuple(column.name for column in index.columns), index.unique) for index in table.indexes},
            )
            for table in metadata.tables.values()
        }

    assert shape(found) == shape(schema.metadata)
    engine.dispose()


@pytest.mark.anyio
async def test_a_newer_schema_is_refused_and_left_alone(options: BackendOptions) -> None:
    async with SQLStorage(options) as storage:
        await storage.jobs.save([change()])
    with closing(sqlite3.connect(storage.path)) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
        connection.commit()
    for _ in range(2):
        with pytest.raises(SchemaError, match=r"9999, which is newer .* upgrade runnerhub"):
            async with SQLStorage(options):
                pass
    with pytest.raises(SchemaError):
        upgrade(options)
    with closing(sqlite3.connect(storage.path)) as connection:
        assert connection.execute("select count(*) from jobs").fetchone() == (1,)


@pytest.mark.anyio
async def test_a_database_of_something_else_is_refused(options: BackendOptions) -> None:
    options.data_dir.mkdir()
    path = options.data_dir / "runnerhub.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table recipes (id)")
        connection.commit()
    with pytest.raises(SchemaError, match="something else"):
        async with SQLStorage(options):
            pass
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(UnavailableError, match="no SQLite database"):
        async with SQLStorage(options):
            pass


@pytest.mark.anyio
async def test_a_migration_that_is_broken_off_leaves_the_old_schema(
    options: BackendOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise sqlite3.OperationalError("pulled the plug")

    monkeypatch.setattr(
        command, "upgrade", lambda config, _: broken(config.attributes["connection"].exec_driver_sql("create table x (y)"))
    )
    with pytest.raises(UnavailableError, match="pulled the plug"):
        async with SQLStorage(options):
            pass
    monkeypatch.undo()
    assert upgrade(options) == (None, HEAD)


@pytest.mark.anyio
async def test_two_may_open_a_new_database_at_once(options: BackendOptions) -> None:
    opened = []

    async def one() -> None:
        async with SQLStorage(options) as storage:
            opened.append(await storage.events.last())

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(one)
    assert opened == [0] * 4


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "sqlite:////absolute"),
        ("sqlite:///:memory:", "for a storage in memory: memory"),
        ("sqlite:///", "Not a file"),
        ("sqlite:////x.db?mode=ro", "Not a file"),
        ("postgresql://x", "Not a SQLite URL"),
    ],
)
async def test_a_url_that_is_none_is_refused(options: BackendOptions, url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        await _with(options, url=url)
    assert caught.value.field == "storage"


@pytest.mark.anyio
async def test_settings_are_checked(options: BackendOptions) -> None:
    with pytest.raises(ConfigurationError, match=r"settings\.sqlite\.synchronous"):
        await _with(options, settings={"synchronous": "OFF"})
    with pytest.raises(ConfigurationError, match=r"settings\.sqlite\.journal"):
        await _with(options, settings={"journal": "wal"})
    async with await _with(options, settings={"synchronous": "normal"}) as storage:
        assert await storage.events.last() == 0


@pytest.mark.anyio
async def test_a_place_that_cannot_be_written_is_named(options: BackendOptions, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(UnavailableError, match="writable directory"):
        async with SQLStorage(options):
            pass
    with pytest.raises(UnavailableError, match="cannot be opened"):
        async with await _with(options, url=f"sqlite:///{tmp_path}"):
            pass
    storage = SQLStorage(BackendOptions(data_dir=tmp_path / "other"))
    with pytest.raises(UnavailableError, match="not open"):
        await storage.jobs.list(JobQuery())


@pytest.mark.anyio
async def test_sixty_four_writers_share_their_commits(options: BackendOptions) -> None:
    async with SQLStorage(options) as storage:
        groups = 0
        before = storage._database.before

        def counted(connection: sqlite3.Connection) -> None:
            nonlocal groups
            groups += 1
            before(connection)

        storage._database.before = counted
        async with anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(storage.jobs.save, [change(number)])
        assert groups < 32
        assert (await storage.jobs.counts())["queued"] == 64


@pytest.mark.anyio
async def test_a_writer_that_is_cancelled_wrote_all_or_nothing(options: BackendOptions) -> None:
    async with SQLStorage(options) as storage:
        for number in range(60):
            with anyio.move_on_after(number / 20_000):
                await storage.jobs.save([change(number)])
        jobs = (await storage.jobs.list(JobQuery(limit=100))).jobs
        events = await storage.events.after(0)
        assert sorted(one.id for one in jobs) == sorted(event.job_id or "" for event in events)
        assert (await storage.jobs.counts()).get("queued", 0) == len(jobs)


@pytest.mark.anyio
async def test_writers_that_are_cancelled_hold_up_nobody(options: BackendOptions) -> None:
    random, ended = Random(1), set[int]()
    async with SQLStorage(options) as storage:

        async def write(number: int) -> None:
            with anyio.move_on_after(random.uniform(0, 0.01) if number % 2 else None):
                await storage.jobs.save([change(number)])
                ended.add(number)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(write, number)
        assert {number for number in range(200) if not number % 2} <= ended
        stored = {one.id for one in (await storage.jobs.list(JobQuery(limit=1000))).jobs}
        assert {change(number).job.id for number in ended} <= stored
        assert (await storage.jobs.counts())["queued"] == len(stored)


@pytest.mark.anyio
async def test_one_bad_write_does_not_spoil_its_group(options: BackendOptions) -> None:
    async with SQLStorage(options) as storage:

        def broken(connection: sqlite3.Connection) -> None:
            connection.execute("insert into settings values ('half', '{}')")
            raise ZeroDivisionError

        results: list[str] = []

        async def bad() -> None:
            with pytest.raises(ZeroDivisionError):
                await storage._database.write(broken)
            results.append("bad")

        async def good(number: int) -> None:
            assert await storage.jobs.save([change(number)]) != [None]
            results.append("good")

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(good, number)
                tasks.start_soon(bad)
        assert results.count("good") == results.count("bad") == 8
        assert await storage.settings.get("half") is None
        assert (await storage.jobs.counts())["queued"] == 8


@pytest.mark.anyio
async def test_two_processes_share_one_queue(options: BackendOptions) -> None:
    everything = Wanted(labels=frozenset())
    ttl = timedelta(seconds=60)
    async with SQLStorage(options) as one, SQLStorage(options) as two:
        await one.queue().put([entry(f"job_{n}", FakeClock()) for n in range(30)])
        taken: list[str] = []

        async def work(storage: SQLStorage, owner: str) -> None:
            while leases := await storage.queue().lease(1, everything, owner, ttl):
                taken.append(leases[0].job_id)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, one, "one")
            tasks.start_soon(work, two, "two")
        assert sorted(taken) == sorted(f"job_{n}" for n in range(30))
        await one.queue().control("normal-priority", Control.PAUSE)
        await two.queue().put([entry("late", FakeClock())])
        assert await two.queue().lease(1, everything, "two", ttl) == []
        await two.queue().control("normal-priority", Control.RESUME)
        assert len(await one.queue().lease(1, everything, "one", ttl)) == 1


@pytest.mark.anyio
async def test_after_a_restart_of_the_machine_all_owners_are_dead(
    options: BackendOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything, ttl = Wanted(labels=frozenset()), timedelta(days=1)
    async with SQLStorage(options) as storage:
        await storage.queue().put([entry("a", FakeClock())])
        await storage.queue().lease(1, everything, "before", ttl)
        assert await storage.queue().reap("after", ttl) == []
    monkeypatch.setattr(sql_queue, "_boot", lambda: "another life")
    async with SQLStorage(options) as storage:
        (lease,) = await storage.queue().reap("after", ttl)
        assert lease.job_id == "a"


@pytest.mark.anyio
async def test_a_reader_waits_for_no_writer(options: BackendOptions) -> None:
    async with SQLStorage(options) as storage:
        await storage.jobs.save([change()])
        with closing(sqlite3.connect(storage.path, isolation_level=None)) as other:
            other.execute("begin immediate")
            with anyio.fail_after(5):
                assert (await storage.jobs.list(JobQuery())).total == 1
            other.execute("rollback")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux":
        pytest.skip("macOS only knows other ways to make a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.anyio
async def test_a_full_disk_is_said_so_and_heals(small_disk: Path) -> None:
    async with SQLStorage(BackendOptions(data_dir=small_disk / "data")) as storage:
        await storage.jobs.save([change(1)])
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        chunk = LogChunk(1, 1, 1, 300_000, ((0, 1.0),), None, os.urandom(300_000), "1")
        with pytest.raises(StorageFullError, match="make room"):
            await storage.logs.append("job_0001", [chunk], LogPosition(lines=1))
        assert (await storage.jobs.list(JobQuery())).total == 1
        assert await storage.logs.position("job_0001") == LogPosition()
        filler.unlink()
        await storage.logs.append("job_0001", [chunk], LogPosition(lines=1))
        assert await storage.jobs.save([change(2)]) != [None]
        assert (await storage.logs.position("job_0001")).lines == 1
