"""The scheduler: ten thousand jobs, shares, quotas, pause and drain, and why each job waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import anyio
import pytest

from runnerhub import Hub, JobQuery, JobRequest, JobStatus, NotFoundError, PoolConfig, Priority, Reason
from runnerhub.model.status import Mode
from runnerhub.testing import FakeClock, FakeContainers, FakeRun
from tests.engine.conftest import request

pytestmark = pytest.mark.anyio
MakeHub = Callable[..., Hub]
FOREVER = FakeRun(seconds=None)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["memory", "sqlite"])
async def test_ten_thousand_jobs_each_end_once(make_hub: MakeHub, storage: str, anyio_backend: str) -> None:
    if storage == "sqlite" and anyio_backend == "trio":
        return  # the same code above the store; its suite runs on trio
    random, count = Random(7), 10_000
    labels = [f"label-{number}" for number in range(12)]
    sets = [tuple(random.sample(labels, random.randint(1, 3))) for _ in range(50)]
    pools = [
        PoolConfig(name="left", labels=labels[:8], max_runners=20),
        PoolConfig(name="right", labels=labels[4:], max_runners=20),
        PoolConfig(name="all", labels=labels, max_runners=10),
    ]
    containers = FakeContainers()
    async with make_hub(containers, pools=pools, storage=storage) as hub:
        requests = [
            request(f"job-{number}", repository=f"octo/app-{random.randrange(500)}", labels=random.choice(sets), priority=p)
            for number, p in enumerate(random.choices(list(Priority), k=count))
        ]
        jobs = []
        for start in range(0, count, 1000):
            jobs += await hub.delegate_many(requests[start : start + 1000])
        for job in jobs:
            assert (await hub.wait(job.id)).succeeded
        completed, kinds = Counter[str](), Counter[str]()
        async for event in hub.subscribe(0):
            kinds[event.kind] += 1
            completed[event.job_id or ""] += event.kind == "JobCompleted"
            if kinds["JobCompleted"] == count:
                break
        assert kinds == dict.fromkeys(("JobQueued", "JobAssigned", "JobStarted", "JobCompleted"), count)
        assert set(completed.values()) == {1}
        status = await hub.status()
        assert status.jobs == {"completed": count, "success": count}
        assert sum(queue.completed for queue in status.queues.values()) == count
    assert len(containers.starts) == count
    assert set(containers.starts.values()) == {1}
    assert containers.most_at_once <= 50
    assert containers.containers == []


async def test_every_waiting_job_is_explained_right(make_hub: MakeHub, clock: FakeClock) -> None:
    pools = [PoolConfig(name="linux", labels=("linux",), max_runners=2), PoolConfig(name="gpu", labels=("gpu",), max_runners=1)]
    containers = FakeContainers(lambda _: FOREVER, clock=clock)
    async with make_hub(containers, clock, pools=pools, max_jobs_per_repository=1, drain_timeout=0) as hub:
        explained: dict[str, tuple[str, Reason, str | None]] = {}

        async def ask(name: str, reason: Reason, pool: str | None, **more: object) -> None:
            job = await hub.delegate(request(name, **more))
            await clock.advance(0.1)
            explained[job.id] = (name, reason, pool)

        await ask("runs", Reason.RUNNING, "linux", labels=("linux",))
        await ask("quota", Reason.REPOSITORY_QUOTA, "linux", labels=("linux",))
        await ask("other", Reason.RUNNING, "linux", labels=("linux",), repository="octo/b")
        await ask("full", Reason.POOL_FULL, "linux", labels=("linux",), repository="octo/c")
        await ask("none", Reason.NO_MATCHING_POOL, "gpu", labels=("linux", "gpu"))
        for job_id, (name, reason, pool) in explained.items():
            told = await hub.scheduler.explain(job_id)
            assert (name, told.reason, told.closest_pool) == (name, reason, pool)


async def test_quotas_hold(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=10), clock=clock)
    pools = [PoolConfig(max_runners=50)]
    async with make_hub(containers, clock, pools=pools, max_jobs=6, max_jobs_per_repository=2) as hub:
        await hub.delegate_many([request(repository=f"octo/{r}") for r in "aabbaacdeaaab" for _ in range(3)])
        for _ in range(20):
            await clock.advance(1)
            running = await hub.jobs(JobQuery(active=True, limit=100))
            repositories = Counter(job.repository for job in running.jobs)
            assert running.total <= 6
            assert max(repositories.values(), default=0) <= 2
        assert containers.most_at_once == 6
        waiting = (await hub.jobs(JobQuery(status=JobStatus.QUEUED, active=False))).jobs[0]
        assert (await hub.scheduler.explain(waiting.id)).reason is Reason.GLOBAL_QUOTA
        await clock.advance(300)
        assert (await hub.status()).jobs["success"] == 39


async def test_a_pool_may_be_for_some_repositories_only(make_hub: MakeHub) -> None:
    pools = [PoolConfig(name="ours", repositories=("octo/*",)), PoolConfig(name="theirs", repositories=("other/one",))]
    async with make_hub(pools=pools) as hub:
        ours, theirs, nobodys = await hub.delegate_many(
            [request(repository=name) for name in ("octo/app", "other/one", "other/two")]
        )
        assert (await hub.wait(ours.id)).pool == "ours"
        assert (await hub.wait(theirs.id)).pool == "theirs"
        told = await hub.scheduler.explain(nobodys.id)
        assert told.reason is Reason.NO_MATCHING_POOL
        assert "takes no jobs of other/two" in told.message


async def test_pausing_starts_nothing_and_is_remembered(make_hub: MakeHub, clock: FakeClock) -> None:
    storage = make_hub(clock=clock)
    async with storage as hub:
        state = await hub.scheduler.pause(by="ann", why="upgrade")
        assert (state.mode, state.by, state.why, state.at) == (Mode.PAUSED, "ann", "upgrade", clock.now())
        job = await hub.delegate(request())
        await clock.advance(60)
        told = await hub.scheduler.explain(job.id)
        assert told.reason is Reason.PAUSED
        assert "ann" in told.message
        kept = hub._parts.storage
    async with make_hub(clock=clock, storage_object=kept) as hub:
        assert hub.scheduler.state == state
        await clock.advance(60)
        assert not (await hub.job(job.id)).completed
        await hub.scheduler.resume(by="bob")
        await clock.advance(1)
        assert (await hub.job(job.id)).succeeded
        events = []
        async for event in hub.subscribe(0):
            events.append(event)
            if event.kind == "JobCompleted":
                break
        assert [event.data["by"] for event in events if event.kind.startswith("Scheduler")] == ["ann", "bob"]


async def test_draining_finishes_what_runs(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=10), clock=clock)
    async with make_hub(containers, clock) as hub:
        runs = await hub.delegate(request())
        await clock.advance(1)
        await hub.scheduler.drain(by="ann")
        waits = await hub.delegate(request())
        await clock.advance(100)
        assert (await hub.job(runs.id)).succeeded
        assert (await hub.scheduler.explain(waits.id)).reason is Reason.DRAINING


async def test_one_queue_can_be_paused(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        await hub.scheduler.pause_queue("low-priority", by="ann", why="busy day")
        low = await hub.delegate(request(priority=Priority.LOW))
        high = await hub.delegate(request(priority=Priority.HIGH))
        await clock.advance(5)
        assert (await hub.job(high.id)).succeeded
        told = await hub.scheduler.explain(low.id)
        assert told.reason is Reason.PAUSED
        assert "busy day" in told.message
        assert (await hub.status()).queues["low-priority"].paused
        await hub.scheduler.resume_queue("low-priority", by="ann")
        await clock.advance(5)
        assert (await hub.job(low.id)).succeeded
        with pytest.raises(NotFoundError, match="no queue 'fast'"):
            await hub.scheduler.pause_queue("fast", by="ann")


async def test_a_special_runner_stays_free_for_its_jobs(make_hub: MakeHub, clock: FakeClock) -> None:
    pools = [
        PoolConfig(name="gpu", labels=("linux", "gpu"), max_runners=2),
        PoolConfig(name="plain", labels=("linux",), max_runners=2),
    ]
    containers = FakeContainers(lambda _: FOREVER, clock=clock)
    async with make_hub(containers, clock, pools=pools, drain_timeout=0) as hub:
        jobs = await hub.delegate_many([request(labels=("linux",)), request(labels=("linux",)), request(labels=("gpu",))])
        await clock.advance(1)
        assert [(await hub.job(job.id)).pool for job in jobs] == ["plain", "plain", "gpu"]


async def test_a_strategy_of_ones_own(make_hub: MakeHub, clock: FakeClock) -> None:
    pools = [PoolConfig(name=name) for name in ("a", "b", "c")]
    containers = FakeContainers(lambda _: FOREVER, clock=clock)
    async with make_hub(containers, clock, pools=pools, place=lambda _, offers: offers[-1], drain_timeout=0) as hub:
        job = await hub.delegate(request())
        await clock.advance(1)
        assert (await hub.job(job.id)).pool == "c"


async def test_low_priority_is_served_under_a_stream_of_high(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=1), clock=clock)
    async with make_hub(containers, clock, pools=[PoolConfig(max_runners=1)], ageing=10) as hub:
        low = await hub.delegate(request(priority=Priority.LOW))
        high = [JobRequest(repository="octo/busy", job_name="h", command=("true",), priority=Priority.HIGH)] * 2
        for second in range(60):
            await hub.delegate_many(high)
            await clock.advance(1)
            if (await hub.job(low.id)).completed:
                break
        assert 1 <= second <= 45
        await hub.scheduler.drain(by="test")


async def test_warm_runners_are_kept_used_and_replaced(make_hub: MakeHub, clock: FakeClock) -> None:
    containers = FakeContainers(clock=clock)
    pools = [PoolConfig(name="warm", min_idle=2, max_runners=3, idle_timeout=60)]
    async with make_hub(containers, clock, pools=pools) as hub:
        await clock.advance(1)
        before = await hub.pool.runners()
        assert [runner.status.value for runner in before] == ["idle", "idle"]
        job = await hub.delegate(request())
        await clock.advance(1)
        done = await hub.job(job.id)
        assert done.succeeded
        assert done.runner_id == before[0].id
        await clock.advance(2)
        assert hub.pool.status()[0].idle == 2
        await clock.advance(70)
        assert not {runner.id for runner in before} & {runner.id for runner in await hub.pool.runners()}
        assert hub.pool.status()[0].idle == 2
    assert containers.containers == []


async def test_two_hubs_on_one_storage_share_the_work(make_hub: MakeHub, anyio_backend: str) -> None:
    containers = FakeContainers(lambda _: FakeRun(seconds=0.01))
    one, two = (make_hub(containers, storage="sqlite", poll_interval=0.02) for _ in range(2))
    async with one as first, two as second:
        assert first.name != second.name
        jobs = await first.delegate_many([request() for _ in range(40)])
        with anyio.fail_after(30):
            done = [await first.wait(job.id) for job in jobs]
        assert all(job.succeeded for job in done)
        heard = 0
        with anyio.fail_after(10):
            async for event in second.subscribe(0):
                heard += event.kind == "JobCompleted"
                if heard == len(jobs):
                    break
    assert set(containers.starts.values()) == {1}
    assert len(containers.starts) == 40
