"""Runners from elsewhere: they register, heartbeat, get jobs, report, go silent and come back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from runnerhub import Conclusion, ConflictError, Hub, JobStatus, NotFoundError, PoolConfig, Reason, ValidationError
from runnerhub.model.runner import Capabilities, RunnerStatus
from runnerhub.testing import FakeClock, FakeContainers, FakeRun
from tests.engine.conftest import request

pytestmark = pytest.mark.anyio
MakeHub = Callable[..., Hub]


async def test_a_registered_runner_gets_a_job_and_reports(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        runner = await hub.pool.register("mac-1", ["self-hosted", "macOS"], os="macos", architecture="arm64")
        job = await hub.delegate(request(labels=("macos",)))
        await clock.advance(1)
        assigned = await hub.job(job.id)
        assert (assigned.runner_name, assigned.assigned, assigned.pool) == ("mac-1", True, None)
        told = await hub.pool.heartbeat(runner.id)
        assert (told.begin, told.stop) == ((job.id,), ())
        started = await hub.pool.report(runner.id, job.id, attempt=1)
        assert started.status is JobStatus.IN_PROGRESS
        assert (await hub.pool.heartbeat(runner.id, running=[job.id])).begin == ()
        done = await hub.pool.report(
            runner.id, job.id, attempt=1, conclusion=Conclusion.FAILURE, exit_code=2, message="tests failed"
        )
        assert (done.conclusion, done.reason, done.exit_code) == (Conclusion.FAILURE, Reason.REPORTED, 2)
        again = await hub.pool.report(runner.id, job.id, attempt=1, conclusion=Conclusion.SUCCESS)
        assert again.conclusion is Conclusion.FAILURE
        assert (await hub.pool.runner(runner.id)).status is RunnerStatus.IDLE
        assert (await hub.status()).queues["normal-priority"].failed == 1


async def test_what_an_older_attempt_or_another_runner_says_is_refused(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        runner = await hub.pool.register("a", ["gpu"])
        other = await hub.pool.register("b", ["other"])
        job = await hub.delegate(request(labels=("gpu",)))
        await clock.advance(1)
        for runner_id, attempt in ((runner.id, 2), (other.id, 1)):
            with pytest.raises(ConflictError, match="is not with runner"):
                await hub.pool.report(runner_id, job.id, attempt=attempt, conclusion=Conclusion.SUCCESS)


async def test_it_takes_as_many_jobs_as_it_says(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        runner = await hub.pool.register("big", ["big"], capabilities=Capabilities(max_concurrent_jobs=3))
        jobs = await hub.delegate_many([request(labels=("big",)) for _ in range(5)])
        await clock.advance(1)
        assert len((await hub.pool.heartbeat(runner.id)).begin) == 3
        await hub.pool.report(runner.id, jobs[0].id, attempt=1, conclusion=Conclusion.SUCCESS)
        await clock.advance(1)
        assert len((await hub.pool.runner(runner.id)).jobs) == 3
        with pytest.raises(ValidationError, match="max_concurrent_jobs"):
            await hub.pool.register("none", ["x"], capabilities=Capabilities(max_concurrent_jobs=0))


async def test_a_cancelled_job_is_told_to_stop(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        runner = await hub.pool.register("a", ["gpu"])
        job = await hub.delegate(request(labels=("gpu",)))
        await clock.advance(1)
        await hub.cancel(job.id, by="ann")
        told = await hub.pool.heartbeat(runner.id, running=[job.id, "job_of_yesterday"])
        assert (told.begin, sorted(told.stop)) == ((), sorted([job.id, "job_of_yesterday"]))
        done = await hub.pool.report(runner.id, job.id, attempt=1, conclusion=Conclusion.CANCELLED)
        assert done.conclusion is Conclusion.CANCELLED


async def test_a_silent_runner_is_offline_then_lost_and_may_come_back(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock, heartbeat_timeout=90, lost_after=300) as hub:
        runner = await hub.pool.register("a", ["gpu"])
        waits, begun = await hub.pool.register("b", ["cpu"]), None
        assigned = await hub.delegate(request(labels=("gpu",)))
        begun = await hub.delegate(request(labels=("cpu",)))
        await clock.advance(1)
        await hub.pool.report(waits.id, begun.id, attempt=1)
        await clock.advance(100)
        assert (await hub.pool.runner(runner.id)).status is RunnerStatus.OFFLINE
        more = await hub.delegate(request(labels=("gpu",)))
        await clock.advance(1)
        assert (await hub.scheduler.explain(more.id)).reason is Reason.NO_ONLINE_RUNNER
        await clock.advance(220)
        requeued, failed = await hub.job(assigned.id), await hub.job(begun.id)
        assert (requeued.status, requeued.interruptions) == (JobStatus.QUEUED, 1)
        assert (failed.conclusion, failed.reason) == (Conclusion.FAILURE, Reason.INFRASTRUCTURE)
        told = await hub.pool.heartbeat(runner.id, running=[assigned.id])
        assert told.stop == (assigned.id,)
        await clock.advance(1)
        assert (await hub.pool.heartbeat(runner.id)).begin == (assigned.id,)
        assert (await hub.job(assigned.id)).attempt == 2


async def test_a_job_there_has_its_timeout_too(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        runner = await hub.pool.register("a", ["gpu"])
        job = await hub.delegate(request(labels=("gpu",), timeout=timedelta(seconds=30)))
        await clock.advance(1)
        await hub.pool.report(runner.id, job.id, attempt=1)
        await clock.advance(40)
        assert (await hub.job(job.id)).conclusion is Conclusion.TIMED_OUT
        assert (await hub.pool.heartbeat(runner.id, running=[job.id])).stop == (job.id,)


async def test_draining_and_deleting(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        runner = await hub.pool.register("a", ["gpu"])
        job = await hub.delegate(request(labels=("gpu",)))
        await clock.advance(1)
        assert (await hub.pool.drain(runner.id, by="ann", why="new disk")).draining
        assert (await hub.pool.drain(runner.id, by="bob")).draining
        with pytest.raises(ConflictError, match="drain it first"):
            await hub.pool.delete(runner.id)
        await hub.pool.report(runner.id, job.id, attempt=1, conclusion=Conclusion.SUCCESS)
        more = await hub.delegate(request(labels=("gpu",)))
        await clock.advance(5)
        assert not (await hub.job(more.id)).assigned
        await hub.pool.delete(runner.id)
        with pytest.raises(NotFoundError):
            await hub.pool.runner(runner.id)
        with pytest.raises(NotFoundError):
            await hub.pool.heartbeat(runner.id)
        with pytest.raises(ConflictError, match="'a'"):
            await hub.pool.register("a", ["gpu"])
            await hub.pool.register("a", ["gpu"])


async def test_the_hub_s_own_runners_are_not_to_be_spoken_for(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=None), clock=clock)
    async with make_hub(containers, clock, pools=[PoolConfig()]) as hub:
        await hub.delegate(request())
        await clock.advance(1)
        (own,) = await hub.pool.runners()
        assert own.status is RunnerStatus.BUSY
        with pytest.raises(ConflictError, match="takes care of itself"):
            await hub.pool.heartbeat(own.id)


async def test_leases_of_registered_runners_survive_a_restart(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        storage = hub._parts.storage
        runner = await hub.pool.register("a", ["gpu"])
        job = await hub.delegate(request(labels=("gpu",)))
        await clock.advance(1)
        await hub.pool.report(runner.id, job.id, attempt=1)
    async with make_hub(clock=clock, storage_object=storage) as hub:
        done = await hub.pool.report(runner.id, job.id, attempt=1, conclusion=Conclusion.SUCCESS, exit_code=0)
        assert done.succeeded
        assert (await hub.status()).queues["normal-priority"].completed == 1
