"""A program that embeds the hub, as its author's type checker sees it: checked, never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import assert_type

import runnerhub
from runnerhub import Event, Explanation, Hub, HubConfig, Job, JobPage, JobRequest, LogLine, PoolConfig, Runner, hookimpl
from runnerhub.backends.memory import MemoryQueue, MemoryStorage
from runnerhub.backends.process import ProcessContainers
from runnerhub.backends.sql import SQLQueue, SQLStorage
from runnerhub.model.config import BackendOptions
from runnerhub.protocols import Clock, ContainerBackend, HasQueue, QueueBackend, ResumableLogs, Stats, StorageBackend, Warm
from runnerhub.testing import FakeClock, FakeContainers


async def embed() -> None:
    async with Hub(HubConfig(pools=(PoolConfig(name="a"),)), containers={"process": FakeContainers()}) as hub:
        assert_type(hub, Hub)
        job = await hub.delegate(JobRequest(repository="octo/app", job_name="a", command=["true"], timeout=timedelta(hours=1)))
        assert_type(job, Job)
        assert_type(await hub.wait(job.id, timeout=3), Job)
        assert_type(await hub.jobs(), JobPage)
        async for line in hub.logs(job.id, follow=True):
            assert_type(line, LogLine)
        async for event in hub.subscribe(since=0):
            assert_type(event, Event)
        assert_type(await hub.scheduler.explain(job.id), Explanation)
        assert_type(await hub.pool.runners(), list[Runner])


def conform(options: BackendOptions) -> None:
    storages: Sequence[StorageBackend] = [MemoryStorage(options), SQLStorage(options)]
    with_queues: Sequence[HasQueue] = [MemoryStorage(options), SQLStorage(options)]
    queues: Sequence[QueueBackend] = [MemoryQueue(options), *(one.queue() for one in with_queues)]
    containers: Sequence[ContainerBackend] = [ProcessContainers(options), FakeContainers()]
    resumable: Sequence[ResumableLogs] = [ProcessContainers(options), FakeContainers()]
    stats: Stats = ProcessContainers(options)
    warm: Warm = FakeContainers()
    clock: Clock = FakeClock()
    del storages, queues, containers, resumable, stats, warm, clock


def of(storage: SQLStorage) -> SQLQueue:
    return storage.queue()


@hookimpl
def runnerhub_container_backends() -> Mapping[str, str]:
    return {"mine": "my_package:Mine"}


def fail() -> None:
    try:
        raise runnerhub.ValidationError("wrong", field="x")
    except runnerhub.RunnerHubError as error:
        assert_type(error, runnerhub.RunnerHubError)
