"""Smaller parts: the bus, retention, identity, what observers see, and leases that cannot be kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Self

import anyio
import pytest

from runnerhub import Conclusion, ConfigurationError, Hub, HubConfig, JobStatus, NotFoundError, Reason, UnavailableError
from runnerhub.backends.memory import MemoryQueue, MemoryStorage
from runnerhub.engine.bus import Bus, Signals
from runnerhub.engine.clock import SystemClock, deadline, wait_at_most
from runnerhub.engine.identity import Identity
from runnerhub.engine.retention import Retention
from runnerhub.events import JobQueued, SystemAlert
from runnerhub.model.config import BackendOptions
from runnerhub.model.errors import ConflictError, StorageFullError
from runnerhub.testing import FakeClock, FakeContainers, FakeRun
from tests.engine.conftest import request

pytestmark = pytest.mark.anyio
MakeHub = Callable[..., Hub]


def memory(clock: FakeClock) -> MemoryStorage:
    return MemoryStorage(BackendOptions(now=clock.now, monotonic=clock.monotonic))


async def test_events_come_in_order_whoever_stored_them(clock: FakeClock) -> None:
    storage = memory(clock)
    bus = Bus(storage.events, clock, poll_interval=1)
    await bus.open()
    heard: list[int] = []
    bus.listen(lambda event: heard.append(event.sequence))
    first, second, third = [await storage.events.append(SystemAlert(at=clock.now())) for _ in range(3)]
    bus.publish(third)
    bus.publish(first)
    bus.publish(first)
    assert heard == [1]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.pump)
        await clock.advance(0.1)
        assert heard == [1, 2, 3]
        await storage.events.append(SystemAlert(at=clock.now()))
        await clock.advance(2)
        assert heard == [1, 2, 3, 4]
        tasks.cancel_scope.cancel()
    assert second.sequence == 2


async def test_a_subscriber_that_fell_far_behind_reads_the_storage(clock: FakeClock) -> None:
    storage = memory(clock)
    bus = Bus(storage.events, clock, poll_interval=1)
    for _ in range(5000):
        bus.publish(await storage.events.append(SystemAlert(at=clock.now())))
    events = bus.subscribe(0)
    assert [(await anext(events)).sequence for _ in range(5000)] == list(range(1, 5001))
    late = bus.subscribe(10)
    await storage.events.prune(clock.now() + timedelta(days=1), 10_000)
    bus._recent.clear()
    with anyio.move_on_after(0.02) as waiting:
        await anext(late)
    assert waiting.cancelled_caught


async def test_a_signal_wakes_those_who_wait_and_keeps_nothing() -> None:
    signals = Signals()
    event = signals.get("a")
    assert signals.get("a") is event
    signals.set("a")
    signals.set("b")
    assert event.is_set()
    assert not signals.get("a").is_set()
    assert len(signals._waiting) == 0


async def test_deadlines_are_kept_on_the_given_clock(clock: FakeClock) -> None:
    async def limited() -> None:
        async with deadline(clock, 5) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        done.set()

    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limited)
        await clock.advance(4)
        assert not done.is_set()
        await clock.advance(2)
        assert done.is_set()
    with pytest.raises(ZeroDivisionError):
        async with deadline(clock, 5):
            raise ZeroDivisionError
    assert not await wait_at_most(SystemClock(), 0.01, anyio.Event())


async def test_what_is_old_goes(clock: FakeClock) -> None:
    storage = memory(clock)
    config = HubConfig(keep_events=timedelta(days=1))
    for _ in range(450):
        await storage.events.append(JobQueued(at=clock.now()))
    await clock.advance(2 * 86400)
    await storage.events.append(JobQueued(at=clock.now()))
    retention = Retention(config, storage, clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(retention.run)
        await clock.advance(1)
        assert len(await storage.events.after(0)) == 1
        await storage.events.append(JobQueued(at=clock.now() - timedelta(days=9)))

        async def full(*_: object) -> int:
            raise StorageFullError("no room")

        storage.jobs.prune = full  # type: ignore[method-assign]
        await clock.advance(3601)
        tasks.cancel_scope.cancel()
    assert len(await storage.events.after(0)) == 2


def test_a_name_is_taken_up_again_and_never_shared(tmp_path: Path) -> None:
    with Identity("my hub!", tmp_path) as first, Identity("my hub!", tmp_path) as second:
        assert first.first
        assert not second.first
        assert first.name != second.name
        assert first.name.startswith("my-hub-")
    with Identity("my hub!", tmp_path) as again:
        assert (again.name, again.first) == (first.name, True)
    with Identity("my hub!", tmp_path / "other") as elsewhere:
        assert elsewhere.name != first.name
    (tmp_path / "hub.id").write_text("")
    with Identity("☃", tmp_path) as renamed:
        assert renamed.name.startswith("hub-")
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"data_dir .* writable directory"), Identity("x", tmp_path / "file"):
        pass


async def test_an_observer_sees_what_a_hub_does(make_hub: MakeHub, clock: FakeClock) -> None:
    storage = memory(clock)
    containers = FakeContainers(lambda _: FakeRun(seconds=None), clock=clock)
    async with (
        make_hub(containers, clock, storage_object=storage) as hub,
        make_hub(containers, clock, storage_object=storage, observe=True) as observer,
    ):
        await clock.advance(1)
        job = await hub.delegate(request())
        strange = await observer.delegate(request(labels=("windows",)))
        await clock.advance(2)
        assert (await observer.job(job.id)).status is JobStatus.IN_PROGRESS
        assert (await observer.scheduler.explain(strange.id)).reason is Reason.NO_MATCHING_POOL
        assert (await observer.status()).pools == ()
        await observer.cancel(job.id, by="ann")
        await clock.advance(2)
        assert (await hub.job(job.id)).completed
        await observer.scheduler.pause(by="bob")
        await clock.advance(2)
        assert hub.scheduler.state.by == "bob"
    async with make_hub(containers, clock, storage_object=storage, observe=True) as observer:
        assert (await observer.scheduler.explain(strange.id)).reason is Reason.NO_HUB


async def test_a_queue_of_its_own_is_put_right_again(make_hub: MakeHub, clock: FakeClock) -> None:
    queue = MemoryQueue(BackendOptions(now=clock.now, monotonic=clock.monotonic))
    containers = FakeContainers(clock=clock)
    async with make_hub(containers, clock, queue_object=queue, reap_interval=30) as hub:
        await hub.scheduler.pause(by="ann")
        jobs = await hub.delegate_many([request(str(number)) for number in range(3)])
        await hub.cancel(jobs[0].id, by="ann")
        queue.withdraw(jobs[1].id)  # as if its entry had been lost
        await hub.scheduler.resume(by="ann")
        await clock.advance(1)
        assert (await hub.job(jobs[2].id)).succeeded
        assert not (await hub.job(jobs[1].id)).completed
        await clock.advance(31)
        assert (await hub.job(jobs[1].id)).succeeded
        stats = await queue.stats()
        assert stats.queues["normal-priority"].active == 0
        assert stats.queues["normal-priority"].completed == 3


async def test_a_storage_without_a_queue_needs_one(make_hub: MakeHub, clock: FakeClock) -> None:
    class Alone:
        durable = False

        def __init__(self) -> None:
            inner = memory(clock)
            self.jobs, self.runners, self.events = inner.jobs, inner.runners, inner.events
            self.logs, self.settings = inner.logs, inner.settings

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *error: object) -> None:
            pass

    with pytest.raises(ConfigurationError, match="queue: The storage has no queue"):
        async with make_hub(clock=clock, storage_object=Alone()):
            pass


async def test_a_store_that_is_away_for_a_while_costs_nothing(make_hub: MakeHub, clock: FakeClock) -> None:
    storage = memory(clock)
    queue = storage.queue()
    containers = FakeContainers(lambda _: FakeRun(seconds=5), clock=clock)
    async with make_hub(containers, clock, storage_object=storage) as hub:
        job = await hub.delegate(request())
        await clock.advance(1)
        save, stats, extend, append = storage.jobs.save, queue.stats, queue.extend, storage.logs.append

        async def away(*_: object, **__: object) -> None:
            raise UnavailableError("the store is away")

        storage.jobs.save = queue.stats = queue.extend = storage.logs.append = away  # type: ignore[method-assign, assignment]
        await clock.advance(10)
        with pytest.raises(UnavailableError):
            await hub.delegate(request())
        storage.jobs.save, queue.stats, queue.extend, storage.logs.append = save, stats, extend, append  # type: ignore[method-assign]
        await clock.advance(10)
        assert (await hub.job(job.id)).succeeded


async def test_what_the_hub_cannot_carry_becomes_a_dead_letter(make_hub: MakeHub, clock: FakeClock) -> None:
    class Broken(FakeContainers):
        async def wait(self, container_id: str) -> object:  # type: ignore[override]
            raise RuntimeError("a bug in a backend")

    containers = Broken(lambda _: FakeRun(seconds=None), clock=clock)
    async with make_hub(containers, clock, reap_interval=1) as hub:
        job = await hub.delegate(request())
        await clock.advance(20)
        done = await hub.job(job.id)
        assert done.reason is Reason.INFRASTRUCTURE
        assert "could not carry it" in done.message
        assert (await hub.status()).queues["normal-priority"].failed == 1
        assert containers.containers == []


@pytest.mark.parametrize(("errors", "conclusion"), [(2, Conclusion.SUCCESS), (3, Conclusion.FAILURE), (4, Conclusion.SUCCESS)])
async def test_a_job_that_cannot_be_read_for_a_while(
    make_hub: MakeHub, clock: FakeClock, errors: int, conclusion: Conclusion
) -> None:
    """Three errors make a dead letter, unless not even that can be written: then it is tried once more."""
    storage = memory(clock)
    async with make_hub(clock=clock, storage_object=storage) as hub:
        await hub.scheduler.pause(by="test")
        job = await hub.delegate(request())
        hub._parts.ledger._known.clear()
        get, calls = storage.jobs.get, 0

        async def broken(job_id: str) -> object:
            nonlocal calls
            calls += 1
            if calls <= errors:
                raise RuntimeError("a row that cannot be read")
            return await get(job_id)

        storage.jobs.get = broken  # type: ignore[method-assign, assignment]
        await hub.scheduler.resume(by="test")
        await clock.advance(30)
        assert (await hub.job(job.id)).conclusion is conclusion


async def test_entries_without_a_job_are_acknowledged(make_hub: MakeHub, clock: FakeClock) -> None:
    from runnerhub.testing.samples import entry

    storage = memory(clock)
    async with make_hub(clock=clock, storage_object=storage) as hub:
        await storage.queue().put([entry("job_gone", clock)])
        await clock.advance(5)
        assert (await hub.status()).queues["normal-priority"].completed == 1


async def test_a_change_that_is_always_refused_is_given_up(make_hub: MakeHub, clock: FakeClock) -> None:
    storage = memory(clock)
    async with make_hub(clock=clock, storage_object=storage) as hub:
        job = await hub.delegate(request(labels=("none",)))
        number = 0

        async def busy(job_id: str) -> object:
            nonlocal number
            number += 1
            return __import__("attrs").evolve(job, version=job.version + number)

        async def refuse(changes: object) -> list[None]:
            return [None]

        storage.jobs.get, storage.jobs.save = busy, refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(ConflictError, match="too quickly"):
            await hub.cancel(job.id, by="ann")
        with pytest.raises(ConflictError, match="could not be stored"):
            await hub.delegate(request())


async def test_the_pool_s_runner_can_be_asked_for(make_hub: MakeHub, clock: FakeClock) -> None:
    async with make_hub(clock=clock) as hub:
        with pytest.raises(NotFoundError, match="no runner 'runner_x'"):
            await hub.pool.runner("runner_x")
        with pytest.raises(NotFoundError):
            await hub.pool.drain("runner_x", by="ann")
