"""How quickly the log of one job is stored, and what memory that takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from benchmarks.measure import Figure, interleaved
from runnerhub import Hub, HubConfig, JobRequest

MEGABYTES = 400
ROUNDS = 3
LINE = b"%08d " + b"x" * 90 + b"\n"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _run() -> tuple[float, float]:
    lines = MEGABYTES * 1_000_000 // len(LINE % 0)
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "log"
        with source.open("wb") as file:
            for start in range(0, lines, 100_000):
                file.write(b"".join(LINE % number for number in range(start, min(lines, start + 100_000))))
        config = HubConfig(data_dir=Path(directory) / "data", max_log_bytes=2**34, settings={"process": {"sandbox": "none"}})
        async with Hub(config) as hub:
            warm_up = await hub.delegate(JobRequest(repository="octo/app", job_name="warm", command=("true",)))
            await hub.wait(warm_up.id)
            most = before = _resident()
            request = JobRequest(repository="octo/app", job_name="log", command=("cat", str(source)))
            began = time.perf_counter()
            job = await hub.delegate(request)

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, _resident())
                    await anyio.sleep(0.02)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                await hub.wait(job.id)
                seconds = time.perf_counter() - began
                tasks.cancel_scope.cancel()
            last = 0
            async for line in hub.logs(job.id, after=lines - 10):
                last = line.number
            if last != lines:
                sys.exit(f"{last} of {lines} lines were stored")
    return MEGABYTES / seconds, (most - before) / 2**20


def run() -> None:
    """One run: megabytes per second and MiB of growth on one line."""
    speed, growth = anyio.run(_run)
    sys.stdout.write(f"{speed} {growth}\n")


def measure() -> list[Figure]:
    """100-byte lines of one job, stored durably."""
    growth: list[float] = []

    def once() -> float:
        code = "import benchmarks.logs_ as b; b.run()"
        out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        speed, grown = map(float, out.split())
        growth.append(grown)
        return speed

    speed = interleaved(ROUNDS, {"logs": once})["logs"]
    return [
        Figure("log of one job, 100-byte lines, stored", f"{speed:.0f} MB/s", "≥ 50 MB/s", speed >= 50),
        Figure("memory growth of the hub meanwhile", f"{max(growth):.0f} MiB", "≤ 64 MiB", max(growth) <= 64),
    ]
