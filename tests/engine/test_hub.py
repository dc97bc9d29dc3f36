"""The hub from outside: a job is delegated, run, logged, ended, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest
from attrs import evolve

from runnerhub import (
    Conclusion,
    ConfigurationError,
    ConflictError,
    Hub,
    HubConfig,
    HubStateError,
    JobQuery,
    JobStatus,
    NotFoundError,
    PoolConfig,
    Reason,
    Resources,
    hookimpl,
)
from runnerhub.events import JobCompleted
from runnerhub.model.container import ContainerSpec, ExitStatus
from runnerhub.model.errors import ContainerStartError
from runnerhub.testing import FakeClock, FakeContainers, FakeRun
from tests.engine.conftest import request

pytestmark = pytest.mark.anyio
MakeHub = Callable[..., Hub]


async def test_a_job_runs_from_delegation_to_its_end(make_hub: MakeHub) -> None:
    containers = FakeContainers(lambda _: FakeRun(output=(b"hello\nwor", b"ld\n"), exit=ExitStatus(code=3)))
    async with make_hub(containers) as hub:
        events = hub.subscribe()
        job = await hub.delegate(request(labels=("self-hosted", "LINUX")))
        assert job.status is JobStatus.QUEUED
        lines = [line async for line in hub.logs(job.id, follow=True)]
        done = await hub.wait(job.id)
        assert [(line.number, line.text) for line in lines] == [(1, "hello"), (2, "world")]
        assert (done.conclusion, done.reason, done.exit_code, done.attempt) == (Conclusion.FAILURE, Reason.EXITED, 3, 1)
        kinds = []
        async for event in events:
            kinds.append(event.kind)
            if isinstance(event, JobCompleted):
                break
        assert kinds == ["JobQueued", "JobAssigned", "JobStarted", "JobCompleted"]
    assert containers.containers == []
    assert list(containers.starts.values()) == [1]


async def test_what_is_asked_for_reaches_the_container(make_hub: MakeHub) -> None:
    seen: list[ContainerSpec] = []

    def script(spec: ContainerSpec) -> FakeRun:
        seen.append(spec)
        return FakeRun()

    pool = PoolConfig(image="pool:1", env={"A": "pool", "B": "pool"}, resources=Resources(cpus=2, memory_mb=100), command=["d"])
    async with make_hub(FakeContainers(script), pools=[pool]) as hub:
        own = await hub.delegate(request(image="own:1", env={"B": "job"}, resources=Resources(memory_mb=50)))
        await hub.wait(own.id)
        default = await hub.delegate(request(command=None))
        await hub.wait(default.id)
    first, second = seen
    assert (first.image, first.command, first.resources) == ("own:1", ("true",), Resources(cpus=2, memory_mb=50))
    assert {name: first.env[name] for name in ("A", "B", "CI", "RUNNERHUB_JOB_ID", "RUNNERHUB_ATTEMPT")} == {
        "A": "pool",
        "B": "job",
        "CI": "true",
        "RUNNERHUB_JOB_ID": own.id,
        "RUNNERHUB_ATTEMPT": "1",
    }
    assert first.labels["runnerhub.job"] == own.id
    assert (second.image, second.command[-1]) == ("pool:1", "d")


@pytest.mark.parametrize(
    ("pool", "asked", "told"),
    [
        (PoolConfig(), {"command": None}, "no command"),
        (PoolConfig(allow_image=False), {"image": "own:1"}, "does not let jobs name their image"),
    ],
)
async def test_a_job_that_cannot_start_fails_and_says_why(
    make_hub: MakeHub, pool: PoolConfig, asked: dict[str, object], told: str
) -> None:
    async with make_hub(pools=[pool]) as hub:
        done = await hub.wait((await hub.delegate(request(**asked))).id)
        assert (done.conclusion, done.reason) == (Conclusion.FAILURE, Reason.START_FAILED)
        assert told in done.message
        assert await hub.pool.runners() == []


async def test_a_plugin_that_breaks_a_start_is_named(make_hub: MakeHub) -> None:
    class Broken:
        __name__ = "broken"

        @hookimpl
        def runnerhub_filter_runner_spec(self, spec: ContainerSpec) -> None:
            raise RuntimeError(f"no {spec.name}")

    async with make_hub(plugins=[Broken()]) as hub:
        done = await hub.wait((await hub.delegate(request())).id)
        assert done.reason is Reason.START_FAILED
        assert "'broken'" in done.message


async def test_a_plugin_hears_every_event_and_cannot_break_the_hub(make_hub: MakeHub) -> None:
    heard: list[str] = []

    async def hear(event: object) -> None:
        heard.append(type(event).__name__)
        raise RuntimeError("a plugin's mistake")

    class Listening:
        @hookimpl
        def runnerhub_subscribers(self) -> list[object]:
            return [hear]

    async with make_hub(plugins=[Listening()]) as hub:
        await hub.wait((await hub.delegate(request())).id)
        with anyio.fail_after(5):
            while "JobCompleted" not in heard:
                await anyio.sleep(0.01)
    assert heard == ["JobQueued", "JobAssigned", "JobStarted", "JobCompleted"]


async def test_cancelling_a_job_that_waits(make_hub: MakeHub) -> None:
    async with make_hub(pools=[PoolConfig(labels=("windows",))]) as hub:
        job = await hub.delegate(request(labels=("linux",)))
        cancelled = await hub.cancel(job.id, by="ann", why="not needed")
        assert (cancelled.conclusion, cancelled.reason, cancelled.attempt) == (Conclusion.CANCELLED, Reason.CANCELLED, 0)
        assert cancelled.cancellation is not None
        assert cancelled.cancellation.why == "not needed"
        with pytest.raises(ConflictError, match="completed already"):
            await hub.cancel(job.id, by="ann")
        assert (await hub.status()).queues["normal-priority"].waiting == 0


@pytest.mark.parametrize("deaf", [False, True])
async def test_cancelling_a_job_that_runs(make_hub: MakeHub, clock: FakeClock, *, deaf: bool) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=None, deaf=deaf), clock=clock)
    async with make_hub(containers, clock, cancel_grace=15, drain_timeout=0) as hub:
        job = await hub.delegate(request())
        await clock.advance(1)
        assert (await hub.job(job.id)).status is JobStatus.IN_PROGRESS
        asked = await hub.cancel(job.id, by="ann")
        assert asked.cancellation is not None
        assert await hub.cancel(job.id, by="bob") == asked
        await clock.advance(16)
        done = await hub.job(job.id)
        assert (done.conclusion, done.exit_code) == (Conclusion.CANCELLED, 137 if deaf else 143)
        await clock.advance(1)
        assert containers.containers == []


async def test_a_job_that_takes_too_long_is_ended(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=None), clock=clock)
    async with make_hub(containers, clock, pools=[PoolConfig(job_timeout=100)]) as hub:
        own = await hub.delegate(request(timeout=timedelta(seconds=10)))
        pools = await hub.delegate(request())
        await clock.advance(11)
        done = await hub.job(own.id)
        assert (done.conclusion, done.reason) == (Conclusion.TIMED_OUT, Reason.TIMED_OUT)
        assert "0:00:10" in done.message
        assert not (await hub.job(pools.id)).completed
        await clock.advance(100)
        assert (await hub.job(pools.id)).conclusion is Conclusion.TIMED_OUT


async def test_a_container_that_nobody_knows_the_end_of_is_no_failure_of_the_job(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=None), clock=clock)
    async with make_hub(containers, clock) as hub:
        lost, removed = await hub.delegate_many([request("lost"), request("removed")])
        await clock.advance(1)
        (first,) = await containers.find({"runnerhub.job": lost.id})
        (second,) = await containers.find({"runnerhub.job": removed.id})
        containers.lose(first.id)
        await containers.remove(second.id)
        await clock.advance(1)
        for job_id, told in ((lost.id, "restarted"), (removed.id, "removed")):
            done = await hub.job(job_id)
            assert (done.conclusion, done.reason, done.exit_code) == (Conclusion.FAILURE, Reason.INFRASTRUCTURE, None)
            assert told in done.message


async def test_a_failed_start_is_tried_again_and_the_pool_backs_off(make_hub: MakeHub, clock: FakeClock) -> None:
    error = ContainerStartError("no room")
    containers = FakeContainers(lambda _: FakeRun(start_error=error), clock=clock)
    async with make_hub(containers, clock, pools=[PoolConfig(max_runners=1)], max_interruptions=3) as hub:
        job = await hub.delegate(request())
        await clock.advance(0.1)
        requeued = await hub.job(job.id)
        assert (requeued.status, requeued.interruptions, requeued.message) == (JobStatus.QUEUED, 1, "no room")
        assert hub.pool.status()[0].busy == 0
        other = await hub.delegate(request("other"))
        await clock.advance(0.1)
        assert hub.pool.status()[0].failures == 2
        assert hub.pool.status()[0].backing_off_for > 0
        third = await hub.delegate(request("third"))
        assert (await hub.scheduler.explain(third.id)).reason is Reason.POOL_BACKING_OFF
        await clock.advance(600)
        for each in (job, other, third):
            done = await hub.job(each.id)
            assert (done.conclusion, done.reason, done.attempt) == (Conclusion.FAILURE, Reason.INFRASTRUCTURE, 3)
        assert (await hub.status()).queues["normal-priority"].failed == 3


async def test_a_start_that_takes_too_long_has_failed(make_hub: MakeHub, clock: FakeClock) -> None:
    slow = iter([FakeRun(start_seconds=1000), FakeRun()])
    containers = FakeContainers(lambda _: next(slow), clock=clock)
    async with make_hub(containers, clock, pools=[PoolConfig(bootstrap_timeout=30)]) as hub:
        job = await hub.delegate(request())
        await clock.advance(31)
        assert "bootstrap_timeout" in (await hub.job(job.id)).message
        await clock.advance(10)
        done = await hub.job(job.id)
        assert (done.conclusion, done.attempt) == (Conclusion.SUCCESS, 2)


async def test_the_same_github_job_is_delegated_once(make_hub: MakeHub) -> None:
    async with make_hub() as hub:
        first = await hub.delegate(request(github_job_id=7))
        again, other = await hub.delegate_many([request(github_job_id=7), request(github_job_id=8)])
        assert again.id == first.id
        assert other.id != first.id
        await hub.wait(other.id)
        assert (await hub.jobs()).total == 2


async def test_a_completed_job_can_be_run_again(make_hub: MakeHub) -> None:
    async with make_hub() as hub:
        job = await hub.delegate(request(github_job_id=7))
        await hub.wait(job.id)
        again = await hub.retry(job.id, by="ann")
        assert again.retry_of == job.id
        assert (await hub.wait(again.id)).succeeded
        waits = await hub.delegate(request(labels=("none",)))
        with pytest.raises(ConflictError, match="has not completed"):
            await hub.retry(waits.id, by="ann")


async def test_a_delayed_job_starts_when_it_is_due(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        job = await hub.delegate(request(delay=timedelta(seconds=30)))
        await clock.advance(29)
        assert (await hub.scheduler.explain(job.id)).reason is Reason.DELAYED
        await clock.advance(2)
        assert (await hub.job(job.id)).succeeded


async def test_waiting_can_end_before_the_job(make_hub: MakeHub) -> None:
    async with make_hub() as hub:
        job = await hub.delegate(request(labels=("none",)))
        with pytest.raises(TimeoutError, match=job.id):
            await hub.wait(job.id, timeout=0.02)
        with pytest.raises(TimeoutError):
            await hub.wait(job.id, timeout=timedelta(milliseconds=5))


async def test_unknown_jobs_are_named(make_hub: MakeHub) -> None:
    async with make_hub() as hub:
        for call in (hub.job("job_x"), hub.wait("job_x"), hub.cancel("job_x", by="me"), hub.scheduler.explain("job_x")):
            with pytest.raises(NotFoundError, match="no job 'job_x'"):
                await call
        with pytest.raises(NotFoundError):
            _ = [line async for line in hub.logs("job_x")]


async def test_a_closed_hub_says_so(make_hub: MakeHub) -> None:
    hub = make_hub()
    with pytest.raises(HubStateError, match="async with"):
        await hub.delegate(request())
    async with hub:
        with pytest.raises(HubStateError, match="open already"):
            await hub.__aenter__()
    with pytest.raises(HubStateError):
        await hub.jobs(JobQuery())
    await hub.__aexit__(None, None, None)


async def test_closing_waits_for_what_runs_and_leaves_the_rest(make_hub: MakeHub) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=0.1))
    async with make_hub(containers, pools=[PoolConfig(max_runners=1)]) as hub:
        jobs = await hub.delegate_many([request(), request()])
        with anyio.fail_after(5):
            while (await hub.job(jobs[0].id)).status is JobStatus.QUEUED:
                await anyio.sleep(0.005)
        storage = hub._parts.storage
    assert [(await storage.jobs.get(job.id)).conclusion for job in jobs] == [Conclusion.SUCCESS, None]


async def test_an_error_in_the_body_comes_out_as_it_is_and_nothing_is_left(make_hub: MakeHub) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=None))
    with pytest.raises(ZeroDivisionError):
        async with make_hub(containers) as hub:
            await hub.delegate(request())
            with anyio.fail_after(5):
                while not containers.containers:
                    await anyio.sleep(0.005)
            raise ZeroDivisionError
    assert containers.containers == []


async def test_a_broken_opening_releases_what_was_opened(make_hub: MakeHub) -> None:
    class Closing(FakeContainers):
        closed = False

        async def __aexit__(self, *error: object) -> None:
            Closing.closed = True

    class Failing(FakeContainers):
        async def __aenter__(self) -> FakeContainers:
            raise ContainerStartError("cannot open")

    hub = make_hub({"one": Closing(), "two": Failing()}, pools=[PoolConfig(name=n, containers=n) for n in ("one", "two")])  # type: ignore[arg-type]
    with pytest.raises(ContainerStartError, match="cannot open"):
        async with hub:
            pass
    assert Closing.closed


async def test_names_that_nobody_offers_are_refused(make_hub: MakeHub) -> None:
    for wrong, field in (({"storage": "memry"}, "storage"), ({"queue": "rediss://x"}, "queue")):
        with pytest.raises(ConfigurationError, match=field):
            async with make_hub(**wrong):
                pass
    config = HubConfig.from_mapping({"storage": "memory", "pools": [{"containers": "dockr"}]})
    with pytest.raises(ConfigurationError, match=r"pools\[0\]\.containers"):
        async with Hub(config):
            pass


async def test_the_queue_may_be_another_one_than_the_storage_s(make_hub: MakeHub) -> None:
    async with make_hub(queue="memory") as hub:
        assert (await hub.wait((await hub.delegate(request())).id)).succeeded


async def test_status_counts(make_hub: MakeHub) -> None:
    async with make_hub() as hub:
        job = await hub.delegate(request())
        await hub.wait(job.id)
        status = await hub.status()
        assert status.jobs == {"completed": 1, "success": 1}
        assert status.queues["normal-priority"].completed == 1
        assert status.pools[0].max_runners == 2
        assert evolve(status.pools[0], busy=1).free == 1
        assert status.name.startswith("hub-")
