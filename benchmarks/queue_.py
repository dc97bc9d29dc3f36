"""The SQLite queue against the raw limit (such statements through `sqlite3`) and huey on SQLite."""

from __future__ import annotations

import math
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETS = [frozenset({"linux", f"set-{number}"}) for number in range(200)]
ALL = Wanted(labels=frozenset().union(*SETS))


def entries(count: int, prefix: str = "job") -> list[QueueEntry]:
    """Entries of 500 repositories, 200 label sets and three priorities."""
    return [
        QueueEntry(
            job_id=f"{prefix}_{number}",
            repository=f"octo/app-{number % 500}",
            labels=SETS[number % len(SETS)],
            priority=tuple(Priority)[number % 3],
            enqueued_at=NOW,
        )
        for number in range(count)
    ]


def _on_queue(work: Callable[[QueueBackend], Awaitable[float]]) -> float:
    async def run() -> float:
        with tempfile.TemporaryDirectory() as directory:
            async with SQLStorage(BackendOptions(data_dir=Path(directory))) as storage, storage.queue() as queue:
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


def _raw(durable: str = "FULL") -> sqlite3.Connection:
    directory = tempfile.mkdtemp()
    connection = sqlite3.connect(Path(directory) / "raw.db", isolation_level=None)
    connection.executescript(
        f"""pragma journal_mode=wal; pragma synchronous={durable};
        create table ready(lane int, level int, tag real, seq int, job text, primary key(lane, level, tag, seq)) without rowid;
        create table active(job text primary key, owner text, token int) without rowid;
        create table counter(name text primary key, n int) without rowid;
        insert into counter values ('done', 0);"""
    )
    return connection


def _raw_drain() -> float:
    connection = _raw()
    rows = [(number % 200, number % 3, float(number), number, f"job_{number}") for number in range(JOBS)]
    connection.execute("begin")
    connection.executemany("insert into ready values (?, ?, ?, ?, ?)", rows)
    connection.execute("commit")
    began = time.perf_counter()
    for lane, level, tag, seq, job in rows:
        connection.execute("begin immediate")
        connection.execute("delete from ready where lane=? and level=? and tag=? and seq=?", (lane, level, tag, seq))
        connection.execute("insert into active values (?, 'hub', 1)", (job,))
        connection.execute("commit")
        connection.execute("begin immediate")
        connection.execute("delete from active where job=? and owner='hub' and token=1", (job,))
        connection.execute("update counter set n = n + 1 where name = 'done'")
        connection.execute("commit")
    rate = JOBS / (time.perf_counter() - began)
    connection.close()
    return rate


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
    """Rates in jobs per second; everything of ours durable (synchronous=FULL), huey without fsync."""
    found = interleaved(
        ROUNDS,
        {
            "put64": lambda: _on_queue(_concurrently),
            "batch": lambda: _on_queue(_in_batch),
            "drain": lambda: _on_queue(_drain_filled),
            "drain16": lambda: _on_queue(_drain_sixteen),
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
    put, drain = found["put64"] / found["huey put"], found["drain"] / found["huey drain"]
    return [
        Figure("SQLite, lease + ack one by one, raw `sqlite3` limit", f"{found['raw']:.0f}/s"),
        Figure(
            "SQLite, lease + ack one by one, against huey without fsync",
            f"{found['drain']:.0f}/s / {found['huey drain']:.0f}/s = {drain:.1f} ({found['drain'] / found['raw']:.2f} of raw)",
            "≥ 3",
            drain >= 3,
        ),
        Figure("SQLite, lease + ack 16 at a time", f"{found['drain16']:.0f}/s", "≥ 6,000/s", found["drain16"] >= 6000),
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
