"""The index of waiting jobs: operations per second, how they grow, and memory per job."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from benchmarks.measure import Figure, interleaved
from runnerhub.model.job import Priority
from runnerhub.model.queue import QueueEntry, Wanted
from runnerhub.model.waiting import WaitingIndex

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPOSITORIES = [f"octo/app-{number}" for number in range(10_000)]
OPERATIONS = 20_000
ROUNDS = 5


def _world() -> tuple[list[frozenset[str]], list[Wanted]]:
    """200 label sets, and 1,000 runners of 20 kinds, as pools give them."""
    random = Random(1)
    labels = [f"label-{number}" for number in range(40)]
    sets = [frozenset(random.sample(labels, random.randint(1, 3))) for _ in range(200)]
    kinds = [Wanted(labels=frozenset(random.sample(labels, random.randint(10, 25)))) for _ in range(20)]
    return sets, [random.choice(kinds) for _ in range(1000)]


def _entries(count: int, sets: list[frozenset[str]], seed: int) -> list[QueueEntry]:
    random, priorities = Random(seed), list(Priority)
    return [
        QueueEntry(
            job_id=f"job_{seed}_{number}",
            repository=random.choice(REPOSITORIES),
            labels=random.choice(sets),
            priority=random.choice(priorities),
            enqueued_at=NOW,
        )
        for number in range(count)
    ]


def microseconds(depth: int) -> float:
    """The time of one take and one add with so many jobs waiting."""
    sets, runners = _world()
    index = WaitingIndex(600)
    for entry in _entries(depth, sets, 1):
        index.add(entry, 0)
    fresh = _entries(OPERATIONS, sets, 2)
    for runner in runners:
        index.take(runner, 1)
    began = time.perf_counter()
    for number, entry in enumerate(fresh):
        index.take(runners[number % len(runners)], 1)
        index.add(entry, 1)
    return (time.perf_counter() - began) / OPERATIONS * 1e6


def bytes_per_job(depth: int = 200_000) -> float:
    """Resident memory of the index alone: entries are made before, as the storage has them anyway."""
    sets, _ = _world()
    entries = _entries(depth, sets, 1)
    index = WaitingIndex(600)
    before = _resident()
    for entry in entries:
        index.add(entry, 0)
    return (_resident() - before) / depth


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def _alone(call: str) -> float:
    code = f"import benchmarks.index_ as b; print(b.{call})"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def measure() -> list[Figure]:
    """Take and add, one after the other, each run in a process of its own."""
    found = interleaved(
        ROUNDS,
        {
            "1e3": lambda: _alone("microseconds(1_000)"),
            "1e5": lambda: _alone("microseconds(100_000)"),
            "memory": lambda: _alone("bytes_per_job()"),
        },
    )
    million = interleaved(2, {"1e6": lambda: _alone("microseconds(1_000_000)")})["1e6"]
    rate, growth = 2e6 / found["1e5"], million / found["1e3"]
    return [
        Figure(
            "index, take + add, 100,000 jobs, 1,000 runners, 200 label sets, 10,000 repositories",
            f"{rate:,.0f} operations/s",
            "≥ 100,000/s",
            rate >= 100_000,
        ),
        Figure("index, cost of take + add with 1e6 jobs / with 1e3", f"{growth:.2f}", "≤ 2", growth <= 2),
        Figure("index, memory per waiting job", f"{found['memory']:.0f} bytes", "≤ 1024", found["memory"] <= 1024),
    ]
