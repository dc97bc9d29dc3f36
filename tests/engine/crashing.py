"""A hub in a process of its own, for tests that kill it: delegate some jobs, then sit and wait."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from runnerhub import Hub, HubConfig, JobRequest, PoolConfig


async def main(data_dir: Path, count: int) -> None:
    settings = {"process": {"sandbox": "none"}}  # the jobs write down what they did, outside
    config = HubConfig(data_dir=data_dir, pools=(PoolConfig(max_runners=count),), settings=settings)
    async with Hub(config) as hub:
        script = 'echo begin $N; echo x >> "$LEDGER/$N"; while [ ! -e "$LEDGER/go" ]; do sleep 0.05; done; echo end $N; exit $N'
        for number in range(count):
            env = {"N": str(number), "LEDGER": str(data_dir / "ledger")}
            await hub.delegate(JobRequest(repository="octo/app", job_name=str(number), command=("sh", "-c", script), env=env))
        await anyio.sleep_forever()


anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
