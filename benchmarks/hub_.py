"""What the hub costs per job, above starting the process by hand."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import anyio

from benchmarks.measure import Figure, interleaved
from runnerhub import Hub, HubConfig, JobRequest, PoolConfig

JOBS = 300
AT_ONCE = 4
ROUNDS = 5


async def _bare(jobs: int) -> None:
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one() -> None:
        async with limiter:
            process = await anyio.open_process(["true"], stdin=None, stdout=None, stderr=None)
            await process.wait()
            await process.aclose()

    async with anyio.create_task_group() as tasks:
        for _ in range(jobs):
            tasks.start_soon(one)


async def _hub(count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        settings = {"process": {"sandbox": "none"}}
        config = HubConfig(data_dir=Path(directory), pools=(PoolConfig(max_runners=AT_ONCE),), settings=settings)
        async with Hub(config) as hub:
            request = JobRequest(repository="octo/app", job_name="true", command=("true",))
            jobs = [await hub.delegate(request) for _ in range(count)]
            for job in jobs:
                done = await hub.wait(job.id)
                if not done.succeeded:
                    sys.exit(f"{done.id}: {done.message}")


def run(name: str, jobs: int) -> None:
    """One side, in a process of its own."""
    anyio.run({"bare": _bare, "hub": _hub}[name], jobs)


def _milliseconds(name: str) -> float:
    """Processor time per job in milliseconds: a whole process tree, less what the same one costs without jobs."""

    def tree(code: str) -> float:
        command = [sys.executable, "-c", f"import benchmarks.hub_ as b; {code}"]
        timed = (
            f"import resource, subprocess; subprocess.run({command!r}, check=True)\n"
            "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
        )
        return float(subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True).stdout)

    return (tree(f"b.run({name!r}, {JOBS})") - tree(f"b.run({name!r}, 0)")) * 1000 / JOBS


def measure() -> list[Figure]:
    """Processor time per job of `true`: delegate → end on the `process` backend with a durable store."""
    found = interleaved(ROUNDS, {"bare": lambda: _milliseconds("bare"), "hub": lambda: _milliseconds("hub")})
    above = found["hub"] - found["bare"]
    return [
        Figure(
            "processor time per job of `true`, delegate → end, above `anyio.open_process`",
            f"{found['hub']:.1f} ms - {found['bare']:.1f} ms = {above:.1f} ms",
            "≤ 3 ms",
            above <= 3,
        )
    ]
