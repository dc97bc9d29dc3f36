"""Hubs for tests: in memory, with fake containers, on a fake clock or the real one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import pytest

from runnerhub import Hub, HubConfig, JobRequest, PoolConfig
from runnerhub.testing import FakeClock, FakeContainers


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_hub(tmp_path: Path) -> Callable[..., Hub]:
    """A hub in memory; keywords are its configuration, but for `containers`, `clock` and those of the Hub."""

    seeds = count(1)

    def make(containers: FakeContainers | None = None, clock: FakeClock | None = None, **more: object) -> Hub:
        mine = {
            name: more.pop(name) for name in ("storage_object", "queue_object", "plugins", "place", "observe") if name in more
        }
        if clock is not None:
            more.setdefault("drain_timeout", 0)  # nobody lets time pass while the hub closes
        config = HubConfig.from_mapping(
            {"storage": "memory", "data_dir": str(tmp_path), "pools": [PoolConfig(labels=("linux",), max_runners=2)], **more}
        )
        return Hub(
            config,
            storage=mine.pop("storage_object", None),
            containers=containers or FakeContainers(clock=clock),
            clock=clock,
            random=Random(next(seeds)),
            queue=mine.pop("queue_object", None),
            **mine,
        )

    return make


def request(name: str = "build", **more: object) -> JobRequest:
    return JobRequest(**{"repository": "octo/app", "job_name": name, "command": ("true",), **more})
