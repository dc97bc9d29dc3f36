"""The SQLite queue against the raw limit (the same statements through `sqlite3`) and huey on SQLite."""

from __future__ import annotations

import math
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
from huey import SqliteHuey

from benchmarks.measure import Figure, interleaved
from runnerhub.backends.sql import SQLStorage
from runnerhub.model.change import Ack
from runnerhub.model.config import BackendOptions
from runnerhub.model.job import Priority
from runnerhub.model.queue import Outcome, QueueEntry, Wanted
from runnerhub.protocols import QueueBackend

JOBS = 3000
CALLERS = 64
ROUNDS = 5
DEEP = 200_000
TTL = timedelta(seconds=60)
SETS = [frozenset({"linux", f"set-{number}"}) for number in range(200)]
ALL = Wanted(labels=frozenset().union(*SETS))


def entries(count: int, prefix: str = "job") -> list[QueueEntry]:
    """Entries of 500 repositories, 200 label sets and three priorities."""
    now = datetime.now(UTC)
    return [
        QueueEntry(
            job_id=f"{prefix}_{number}",
            repository=f"octo/app-{number % 500}",
            labels=SETS[number % len(SETS)],
            priority=tuple(Priority)[number % 3],
            enqueued_at=now,
        )
        for number in range(count)
    ]


def _on_queue(work: Callable[[QueueBackend], Awaitable[float]], synchronous: str = "FULL") -> float:
    async def run() -> float:
        with tempfile.TemporaryDirectory() as directory:
            options = BackendOptions(data_dir=Path(directory), settings={"synchronous": synchronous})
            async with SQLStorage(options) as storage, storage.queue() as queue:
                return await work(queue)

    return anyio.run(run)


async def _concurrently(queue: QueueBackend) -> float:
    waiting = entries(JOBS)

    async def caller(number: int) -> None:
        for entry in waiting[number::CALLERS]:
            await queue.put([entry])

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(CALLERS):
            tasks.start_soon(caller, number)
    return JOBS / (time.perf_counter() - began)


async def _in_batch(queue: QueueBackend) -> float:
    began = time.perf_counter()
    waiting = entries(JOBS * 10)
    for start in range(0, len(waiting), 1000):
        await queue.put(waiting[start : start + 1000])
    return len(waiting) / (time.perf_counter() - began)


async def _drain(queue: QueueBackend, jobs: int = JOBS) -> float:
    began = time.perf_counter()
    for _ in range(jobs):
        (lease,) = await queue.lease(1, ALL, "hub", TTL)
        await queue.ack([Ack(lease, Outcome.COMPLETED)])
    return jobs / (time.perf_counter() - began)


async def _drain_filled(queue: QueueBackend) -> float:
    await queue.put(entries(JOBS))
    return await _drain(queue)


async def _drain_sixteen(queue: QueueBackend) -> float:
    await queue.put(entries(JOBS))
    began, done = time.perf_counter(), 0
    while leases := await queue.lease(16, ALL, "hub", TTL):
        await queue.ack([Ack(lease, Outcome.COMPLETED) for lease in leases])
        done += len(leases)
    return done / (time.perf_counter() - began)


class _Recorded:
    """A connection that remembers its writes, so that they can be done again without us."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.calls: list[tuple[str, Any]] = []

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        self.calls.append((sql, tuple(values)))
        return self._connection.execute(sql, values)

    def executemany(self, sql: str, rows: Sequence[Any]) -> sqlite3.Cursor:
        self.calls.append((sql, list(rows)))
        return self._connection.executemany(sql, rows)


def _raw_drain() -> float:
    """The statements of `_drain_filled`, word for word, through `sqlite3` alone."""

    async def run() -> float:
        with tempfile.TemporaryDirectory() as directory:
            data_dir, copy = Path(directory), Path(directory) / "copy.db"
            async with SQLStorage(BackendOptions(data_dir=data_dir)) as storage, storage.queue() as queue:
                await queue.put(entries(JOBS))
                writer = storage._database._writer  # noqa: SLF001  (to listen in)
                connection = sqlite3.connect(copy, isolation_level=None)
                writer.driver_connection.backup(connection)
                connection.executescript(
                    "pragma journal_mode = wal; pragma synchronous = FULL; pragma wal_autocheckpoint = 4000"
                )
                recorded = _Recorded(writer.driver_connection)
                own = SimpleNamespace(driver_connection=recorded, close=writer.close)
                storage._database._writer = own  # noqa: SLF001  (to listen in)
                await _drain(queue)
            began = time.perf_counter()
            for sql, values in recorded.calls:
                if isinstance(values, list):
                    connection.executemany(sql, values)
                else:
                    connection.execute(sql, values).fetchone()
            rate = JOBS / (time.perf_counter() - began)
            connection.close()
            return rate

    return anyio.run(run)


def _huey(*, fsync: bool) -> SqliteHuey:
    return SqliteHuey(filename=str(Path(tempfile.mkdtemp()) / "huey.db"), fsync=fsync, results=False)


def _huey_put() -> float:
    storage = _huey(fsync=False).storage
    began = time.perf_counter()
    for number in range(JOBS):
        storage.enqueue(b"x" * 250 + str(number).encode())
    return JOBS / (time.perf_counter() - began)


def _huey_drain() -> float:
    huey = _huey(fsync=False)

    @huey.task()
    def nothing(number: int) -> None:
        """A job without work."""

    for number in range(JOBS):
        nothing(number)
    began = time.perf_counter()
    while job := huey.dequeue():
        huey.execute(job)
    return JOBS / (time.perf_counter() - began)


async def _at_depth(queue: QueueBackend, depth: int) -> tuple[float, float]:
    for start in range(0, depth, 5000):
        await queue.put(entries(min(5000, depth - start), f"deep{start}"))
    rate = await _drain(queue, 500)
    began = time.perf_counter()
    for _ in range(50):
        await queue.stats()
    return rate, (time.perf_counter() - began) / 50 * 1000


def measure() -> list[Figure]:
    """Rates in jobs per second; ours durable (synchronous=FULL) unless it says otherwise, huey without fsync."""
    found = interleaved(
        ROUNDS,
        {
            "put64": lambda: _on_queue(_concurrently),
            "batch": lambda: _on_queue(_in_batch),
            "drain": lambda: _on_queue(_drain_filled),
            "drain16": lambda: _on_queue(_drain_sixteen),
            "drain16 unsafe": lambda: _on_queue(_drain_sixteen, "NORMAL"),
            "raw": _raw_drain,
            "huey put": _huey_put,
            "huey drain": _huey_drain,
        },
    )
    depths: dict[int, tuple[float, float]] = {}
    for depth in (10_000, DEEP):

        async def at(queue: QueueBackend, depth: int = depth) -> float:
            depths[depth] = await _at_depth(queue, depth)
            return math.nan

        _on_queue(at)
    flat = depths[DEEP][0] / depths[10_000][0]
    put = found["put64"] / found["huey put"]
    raw, drain = found["drain"] / found["raw"], found["drain16 unsafe"] / found["huey drain"]
    return [
        Figure(
            "SQLite, lease + ack one by one, against the same statements through `sqlite3` alone",
            f"{found['drain']:.0f}/s / {found['raw']:.0f}/s = {raw:.2f}",
        ),
        Figure(
            "SQLite without fsync, lease + ack 16 at a time, against huey without fsync",
            f"{found['drain16 unsafe']:.0f}/s / {found['huey drain']:.0f}/s = {drain:.1f}",
            "≥ 3",
            drain >= 3,
        ),
        Figure(
            "SQLite with fsync, lease + ack 16 at a time", f"{found['drain16']:.0f}/s", "≥ 6,000/s", found["drain16"] >= 6000
        ),
        Figure(
            f"SQLite, {CALLERS} callers, one durable put each, against huey without fsync",
            f"{found['put64']:.0f}/s / {found['huey put']:.0f}/s = {put:.1f}",
            "≥ 1",
            put >= 1,
        ),
        Figure("SQLite, puts in batches of 1,000", f"{found['batch']:.0f}/s"),
        Figure(f"rate with {DEEP:,} waiting / with 10,000", f"{flat:.2f}", "≥ 0.9", flat >= 0.9),
        Figure(f"counters with {DEEP:,} waiting", f"{depths[DEEP][1]:.2f} ms", "≤ 1 ms", depths[DEEP][1] <= 1),
    ]
