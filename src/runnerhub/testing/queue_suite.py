"""What every queue must do: order, fairness, ageing, fences, liveness, control."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from runnerhub.model.change import Ack
from runnerhub.model.config import BackendOptions
from runnerhub.model.errors import NotFoundError
from runnerhub.model.job import Priority
from runnerhub.model.queue import Control, Lease, Outcome, Wanted
from runnerhub.protocols import QueueBackend
from runnerhub.testing.clock import FakeClock
from runnerhub.testing.samples import entry, options_for

ALL = Wanted(labels=frozenset({"linux", "gpu", "x64"}))
TTL = timedelta(seconds=15)


class QueueSuite:
    """Subclass it with a fixture `queue` that gives an opened queue made with the fixture `options`.

    Its time is then the fixture `clock`'s.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of the queue."""
        return FakeClock()

    @pytest.fixture
    def options(self, clock: FakeClock, tmp_path: Path) -> BackendOptions:
        """What the queue is made with: jobs age after a minute."""
        return options_for(clock, tmp_path)

    async def _drain(self, queue: QueueBackend, wanted: Wanted = ALL) -> list[str]:
        order = []
        while leases := await queue.lease(1, wanted, "hub", TTL):
            order.append(leases[0].job_id)
            assert await queue.ack([Ack(leases[0], Outcome.COMPLETED)]) == [True]
        return order

    async def test_first_in_first_out_within_a_repository(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry(f"job_{number}", clock) for number in range(5)])
        assert await self._drain(queue) == [f"job_{number}" for number in range(5)]

    async def test_a_higher_priority_always_goes_first(self, queue: QueueBackend, clock: FakeClock) -> None:
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
            await queue.put([entry(priority.value, clock, priority=priority)])
        assert await self._drain(queue) == ["high", "normal", "low"]

    async def test_only_what_fits_is_given(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put(
            [
                entry("gpu", clock, labels=frozenset({"linux", "gpu"})),
                entry("arm", clock, labels=frozenset({"arm64"})),
                entry("plain", clock, labels=frozenset({"linux"})),
            ]
        )
        assert await self._drain(queue, Wanted(labels=frozenset({"linux"}))) == ["plain"]
        assert await self._drain(queue, ALL) == ["gpu"]
        assert await self._drain(queue, Wanted(labels=frozenset({"arm64", "linux"}))) == ["arm"]

    async def test_repositories_can_be_left_out_and_let_in(self, queue: QueueBackend, clock: FakeClock) -> None:
        names = ("octo/a", "octo/b", "other/c")
        await queue.put([entry(f"{name}-{n}", clock, repository=name) for n in range(2) for name in names])
        without = Wanted(labels=ALL.labels, exclude=frozenset({"octo/a", "octo/b"}))
        assert await self._drain(queue, without) == ["other/c-0", "other/c-1"]
        assert await self._drain(queue, Wanted(labels=ALL.labels, only=frozenset({"octo/b"}))) == ["octo/b-0", "octo/b-1"]
        assert await self._drain(queue, Wanted(labels=ALL.labels, only=frozenset({"other/*"}))) == []
        assert await self._drain(queue, Wanted(labels=ALL.labels, only=frozenset({"octo/*"}))) == ["octo/a-0", "octo/a-1"]

    async def test_a_flood_holds_nobody_back(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry(f"flood-{n}", clock, repository="octo/flood") for n in range(1000)])
        await queue.put([entry(f"small-{r}-{n}", clock, repository=f"octo/small-{r}") for r in range(10) for n in range(2)])
        order = [lease.job_id for lease in await queue.lease(1020, ALL, "hub", TTL)]
        assert sorted(order) == sorted({*order})
        assert len(order) == 1020
        last = max(index for index, name in enumerate(order) if name.startswith("small"))
        assert last < 0.025 * len(order)

    async def test_weights_are_shares(self, queue: QueueBackend, clock: FakeClock) -> None:
        for n in range(40):
            await queue.put([entry(f"heavy-{n}", clock, repository="octo/heavy", weight=3.0)])
            await queue.put([entry(f"light-{n}", clock, repository="octo/light")])
        first = [lease.job_id for lease in await queue.lease(40, ALL, "hub", TTL)]
        assert 28 <= sum(name.startswith("heavy") for name in first) <= 32

    async def test_waiting_lifts_a_job_so_that_low_never_starves(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry("low", clock, priority=Priority.LOW)])
        served = []
        for minute in range(4):
            names = [f"high-{minute}-{n}" for n in range(3)]
            await queue.put([entry(name, clock, priority=Priority.HIGH, repository="octo/busy") for name in names])
            for _ in range(2):
                (lease,) = await queue.lease(1, ALL, "hub", TTL)
                served.append(lease.job_id)
            await clock.advance(61)
        assert "low" in served[4:8]

    async def test_a_delayed_job_waits_for_its_time(self, queue: QueueBackend, clock: FakeClock) -> None:
        later = clock.now() + timedelta(seconds=30)
        await queue.put([entry("later", clock, not_before=later), entry("now", clock)])
        stats = await queue.stats()
        assert (stats.queues["normal-priority"].delayed, stats.queues["normal-priority"].waiting) == (1, 1)
        assert stats.next_due == later
        assert await self._drain(queue) == ["now"]
        await clock.advance(31)
        stats = await queue.stats()
        assert (stats.queues["normal-priority"].delayed, stats.queues["normal-priority"].waiting) == (0, 1)
        assert stats.next_due is None
        assert await self._drain(queue) == ["later"]

    async def test_putting_again_changes_nothing(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry("a", clock), entry("b", clock), entry("a", clock)])
        (lease,) = await queue.lease(1, ALL, "hub", TTL)
        await queue.put([entry("a", clock), entry("b", clock)])
        await queue.put([entry("d", clock, not_before=clock.now() + timedelta(hours=1))])
        await queue.put([entry("d", clock)])
        assert await self._drain(queue) == ["b"]
        assert await queue.extend("hub", TTL) == {lease.job_id}

    async def test_a_job_has_one_live_lease(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry("a", clock)])
        (lease,) = await queue.lease(5, ALL, "one", TTL)
        assert (lease.job_id, lease.repository, lease.owner, lease.taken_over) == ("a", "octo/app", "one", False)
        assert await queue.lease(5, ALL, "two", TTL) == []
        assert await queue.ack([Ack(lease, Outcome.COMPLETED)]) == [True]
        assert await queue.ack([Ack(lease, Outcome.COMPLETED)]) == [False]

    async def test_given_back_it_is_in_front_again(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry(name, clock) for name in "abc"])
        (lease,) = await queue.lease(1, ALL, "hub", TTL)
        assert await queue.nack(lease)
        assert not await queue.nack(lease)
        (again,) = await queue.lease(1, ALL, "hub", TTL)
        assert again.job_id == "a"
        assert again.token > lease.token
        assert await queue.ack([Ack(lease, Outcome.COMPLETED)]) == [False]
        assert await queue.nack(again, delay=timedelta(seconds=10))
        assert await self._drain(queue) == ["b", "c"]
        await clock.advance(11)
        assert await self._drain(queue) == ["a"]

    async def test_the_leases_of_the_dead_are_taken_over(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry("a", clock), entry("b", clock)])
        (dead,) = await queue.lease(1, ALL, "dead", TTL)
        (live,) = await queue.lease(1, ALL, "live", timedelta(hours=1))
        assert await queue.reap("hub", TTL) == []
        await clock.advance(16)
        (taken,) = await queue.reap("hub", TTL)
        assert (taken.job_id, taken.owner, taken.taken_over) == (dead.job_id, "hub", True)
        assert taken.token > dead.token
        assert await queue.extend("dead", TTL) == frozenset()
        assert await queue.extend("hub", TTL) == {taken.job_id}
        assert await queue.ack([Ack(dead, Outcome.COMPLETED), Ack(taken, Outcome.COMPLETED)]) == [False, True]
        assert await queue.ack([Ack(live, Outcome.COMPLETED)]) == [True]

    async def test_an_extended_owner_lives(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry("a", clock)])
        await queue.lease(1, ALL, "hub", TTL)
        for _ in range(5):
            await clock.advance(10)
            assert await queue.extend("hub", TTL) == {"a"}
            assert await queue.reap("other", TTL) == []

    async def test_an_earlier_life_is_taken_over_at_once(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry("a", clock)])
        (before,) = await queue.lease(1, ALL, "hub", timedelta(hours=1))
        (after,) = await queue.reap("hub", TTL, frozenset({"hub"}))
        assert after.token > before.token
        assert await queue.nack(before) is False
        assert await queue.nack(after)

    async def test_counters_are_right_all_along(self, queue: QueueBackend, clock: FakeClock) -> None:
        linux, gpu = frozenset({"linux"}), frozenset({"linux", "gpu"})
        await queue.put([entry(f"l{n}", clock, labels=linux) for n in range(3)])
        await queue.put([entry(f"g{n}", clock, labels=gpu, priority=Priority.HIGH) for n in range(2)])
        assert (await queue.stats()).demand == {linux: 3, gpu: 2}
        leases: Sequence[Lease] = await queue.lease(4, ALL, "hub", TTL)
        outcomes = (Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED)
        await queue.ack([Ack(lease, outcome) for lease, outcome in zip(leases, outcomes, strict=False)])
        stats = await queue.stats()
        high, normal = stats.queues["high-priority"], stats.queues["normal-priority"]
        assert (high.waiting, high.active, high.completed, high.failed) == (0, 0, 1, 1)
        assert (normal.waiting, normal.active, normal.completed, normal.failed) == (1, 1, 1, 0)
        assert stats.demand == {linux: 1}
        assert await queue.nack(leases[3], dead=True)
        assert (await queue.stats()).queues["normal-priority"].failed == 1

    async def test_a_paused_queue_gives_nothing(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry("normal", clock), entry("low", clock, priority=Priority.LOW)])
        assert await queue.control("normal-priority", Control.PAUSE) == []
        stats = await queue.stats()
        assert stats.queues["normal-priority"].paused
        assert stats.demand == {frozenset(): 1}
        await queue.put([entry("more", clock)])
        assert await self._drain(queue) == ["low"]
        await queue.control("normal-priority", Control.RESUME)
        assert await self._drain(queue) == ["normal", "more"]

    async def test_the_failed_are_remembered_until_cleared(self, queue: QueueBackend, clock: FakeClock) -> None:
        await queue.put([entry(name, clock) for name in "ab"])
        for lease in await queue.lease(2, ALL, "hub", TTL):
            await queue.ack([Ack(lease, Outcome.FAILED)])
        assert await queue.control("normal-priority", Control.LIST_FAILED) == ["a", "b"]
        assert await queue.control("normal-priority", Control.CLEAR_FAILED) == ["a", "b"]
        assert await queue.control("normal-priority", Control.LIST_FAILED) == []
        assert (await queue.stats()).queues["normal-priority"].failed == 0

    async def test_an_unknown_queue_is_named(self, queue: QueueBackend) -> None:
        with pytest.raises(NotFoundError, match="no queue 'nonesuch'"):
            await queue.control("nonesuch", Control.PAUSE)
