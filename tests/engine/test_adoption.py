"""A hub that is killed, and the next one that goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from runnerhub import Conclusion, Hub, HubConfig, JobQuery, JobStatus, PoolConfig, Reason
from runnerhub.backends.memory import MemoryStorage
from runnerhub.model.config import BackendOptions
from runnerhub.model.container import ContainerSpec
from runnerhub.testing import FakeClock, FakeContainers, FakeRun
from tests.engine.conftest import request

pytestmark = pytest.mark.anyio
MakeHub = Callable[..., Hub]
JOBS = 20


async def test_a_hub_killed_with_twenty_jobs_is_continued(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("crashing.py")), str(tmp_path), str(JOBS)], env=environment
    )
    try:
        with anyio.fail_after(60):
            while len(list(ledger.iterdir())) < JOBS:
                await anyio.sleep(0.05)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    config = HubConfig(data_dir=tmp_path, pools=(PoolConfig(max_runners=JOBS),))
    async with Hub(config) as hub:
        running = await hub.jobs(JobQuery(active=True, limit=100))
        assert running.total == JOBS
        (ledger / "go").touch()
        with anyio.fail_after(60):
            for job in running.jobs:
                done = await hub.wait(job.id)
                number = int(job.job_name)
                assert (done.exit_code, done.attempt, done.interruptions) == (number, 1, 0)
                assert done.conclusion is (Conclusion.FAILURE if number else Conclusion.SUCCESS)
                lines = [line.text async for line in hub.logs(job.id)]
                assert lines == [f"begin {number}", f"end {number}"]
                assert (ledger / str(number)).read_text() == "x\n"
    assert list((tmp_path / "process").iterdir()) == []


async def test_a_life_that_ended_before_the_start_is_made_up_for(make_hub: MakeHub, clock: FakeClock, tmp_path: Path) -> None:
    """Assigned, but no container: after a second look the job waits again, and runs."""
    storage = MemoryStorage(BackendOptions(now=clock.now, monotonic=clock.monotonic))
    slow = FakeContainers(lambda _: FakeRun(start_seconds=1000), clock=clock)
    async with make_hub(slow, clock, storage_object=storage) as hub:
        job = await hub.delegate(request())
        await clock.advance(1)
        assert (await hub.job(job.id)).assigned
    containers = FakeContainers(clock=clock)
    async with make_hub(containers, clock, storage_object=storage, reap_interval=30) as hub:
        await clock.advance(1)
        assert (await hub.job(job.id)).assigned
        await clock.advance(60)
        done = await hub.job(job.id)
        assert (done.conclusion, done.attempt, done.interruptions) == (Conclusion.SUCCESS, 2, 1)


async def test_a_container_that_is_gone_ends_its_job_as_infrastructure(make_hub: MakeHub, clock: FakeClock) -> None:
    storage = MemoryStorage(BackendOptions(now=clock.now, monotonic=clock.monotonic))
    storage.durable = True  # type: ignore[misc]
    containers = FakeContainers(lambda _: FakeRun(seconds=None), clock=clock)
    async with make_hub(containers, clock, storage_object=storage) as hub:
        job, cancelled = await hub.delegate_many([request(), request()])
        await clock.advance(1)
        await hub.scheduler.pause(by="test")
    (other,) = await containers.find({"runnerhub.job": cancelled.id})
    async with make_hub(containers, clock, storage_object=storage, observe=True) as observer:
        asked = await observer.cancel(cancelled.id, by="ann")
        assert not asked.completed
    await containers.remove(next(one.id for one in containers.containers if one.id != other.id))
    async with make_hub(containers, clock, storage_object=storage, reap_interval=30) as hub:
        await clock.advance(1)
        assert (await hub.job(cancelled.id)).conclusion is Conclusion.CANCELLED
        assert (await hub.job(job.id)).status is JobStatus.IN_PROGRESS
        await clock.advance(31)
        done = await hub.job(job.id)
        assert (done.conclusion, done.reason) == (Conclusion.FAILURE, Reason.INFRASTRUCTURE)
        assert "gone" in done.message


async def test_what_belongs_to_nobody_is_removed_on_the_second_sight(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=None), clock=clock)
    async with make_hub(containers, clock, reap_interval=30) as hub:
        name = hub.name
        strange = {"runnerhub.hub": "another-hub", "runnerhub.job": "job_x"}
        await containers.start(ContainerSpec(name="theirs", command=("x",), labels=strange))
        ours = {"runnerhub.hub": name, "runnerhub.job": "job_gone", "runnerhub.attempt": "1"}
        await containers.start(ContainerSpec(name="ours", command=("x",), labels=ours))
        await clock.advance(31)
        assert {one.name for one in containers.containers} == {"theirs", "ours"}
        await clock.advance(31)
        assert {one.name for one in containers.containers} == {"theirs"}


async def test_a_dead_hub_s_jobs_are_taken_over_by_another(make_hub: MakeHub, clock: FakeClock, tmp_path: Path) -> None:
    storage = MemoryStorage(BackendOptions(now=clock.now, monotonic=clock.monotonic))
    storage.durable = True  # type: ignore[misc]
    containers = FakeContainers(lambda _: FakeRun(seconds=100), clock=clock)
    async with make_hub(containers, clock, storage_object=storage) as hub:
        job = await hub.delegate(request())
        await clock.advance(1)
    other = make_hub(containers, clock, storage_object=storage, data_dir=str(tmp_path / "other"))
    async with other as hub:
        await clock.advance(200)
        done = await hub.job(job.id)
        assert (done.conclusion, done.attempt) == (Conclusion.SUCCESS, 1)
    assert set(containers.starts.values()) == {1}


async def test_a_lease_that_is_lost_is_let_go(make_hub: MakeHub, clock: FakeClock) -> None:
    storage = MemoryStorage(BackendOptions(now=clock.now, monotonic=clock.monotonic))
    containers = FakeContainers(lambda _: FakeRun(seconds=100), clock=clock)
    async with make_hub(containers, clock, storage_object=storage) as hub:
        job = await hub.delegate(request())
        await clock.advance(1)
        (stolen,) = await storage.queue().reap("thief", hub.config.lease_ttl, frozenset({hub.name}))
        assert stolen.job_id == job.id
        await storage.queue().extend("thief", 10 * hub.config.lease_ttl)
        await clock.advance(10)
        assert hub.pool.status()[0].busy == 0
        await clock.advance(100)
        assert (await hub.job(job.id)).status is JobStatus.IN_PROGRESS
