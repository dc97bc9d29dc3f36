"""Which job starts where and when, and why another does not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import anyio

from runnerhub.engine.clock import wait_at_most
from runnerhub.engine.planner import Offer, Place, Situation, Start, explain, plan
from runnerhub.engine.pool import RunnerPool
from runnerhub.engine.runs import Parts, Runs
from runnerhub.model.config import HubConfig
from runnerhub.model.errors import RunnerHubError
from runnerhub.model.event import (
    Event,
    JobCompleted,
    JobQueued,
    JobRequeued,
    QueuePaused,
    QueueResumed,
    RunnerOnline,
    RunnerRegistered,
    SchedulerDraining,
    SchedulerPaused,
    SchedulerResumed,
)
from runnerhub.model.job import QUEUES, Explanation
from runnerhub.model.labels import from_key, key
from runnerhub.model.queue import Control, Lease, Wanted
from runnerhub.model.status import Mode, SchedulerState

_log = logging.getLogger("runnerhub.scheduler")
_MODES = {SchedulerPaused: Mode.PAUSED, SchedulerDraining: Mode.DRAINING, SchedulerResumed: Mode.RUNNING}
_WAKING = (JobQueued, JobRequeued, JobCompleted, RunnerOnline, RunnerRegistered, SchedulerResumed, QueueResumed)
_SETTING = "scheduler"


class Scheduler:
    """Takes jobs from the queue to places that fit. Paused, draining and resumed by people; what they said is kept."""

    def __init__(self, parts: Parts, pool: RunnerPool, *, place: Place, observe: bool) -> None:
        self._parts, self._pool, self._place, self._observe = parts, pool, place, observe
        self._config: HubConfig = parts.config
        self._clock, self._queue, self._settings = parts.clock, parts.queue, parts.storage.settings
        self._state = SchedulerState()
        self._wake = anyio.Event()
        self._closing = False
        self._runs: Runs | None = None
        parts.bus.listen(self._hear)

    # ------------------------------------------------------------------------------------------- for everybody

    @property
    def state(self) -> SchedulerState:
        """What it does, and who said so, when and why."""
        return self._state

    async def pause(self, *, by: str, why: str = "") -> SchedulerState:
        """Start nothing new until somebody resumes; what runs goes on. Kept over restarts."""
        return await self._become(SchedulerPaused, by, why)

    async def drain(self, *, by: str, why: str = "") -> SchedulerState:
        """Like pause, said before a shutdown or an upgrade: when nothing runs any more, it is drained."""
        return await self._become(SchedulerDraining, by, why)

    async def resume(self, *, by: str, why: str = "") -> SchedulerState:
        """Go on after a pause or a drain."""
        return await self._become(SchedulerResumed, by, why)

    async def pause_queue(self, queue: str, *, by: str, why: str = "") -> None:
        """Start nothing of one queue (`high-priority`, ...). Raises `NotFoundError`."""
        await self._control(queue, Control.PAUSE, QueuePaused, by, why)

    async def resume_queue(self, queue: str, *, by: str, why: str = "") -> None:
        """Go on with one queue. Raises `NotFoundError`."""
        await self._control(queue, Control.RESUME, QueueResumed, by, why)

    async def explain(self, job_id: str) -> Explanation:
        """Why a job stands where it stands: a code for machines, a sentence for people. Raises `NotFoundError`."""
        job = await self._parts.ledger.fresh(job_id)
        paused = {}
        for queue in QUEUES:
            if state := await self._settings.get(f"queue:{queue}"):
                paused[queue] = _state(state)
        offers, live = self._pool.offers(), True
        if self._observe:
            live, offers = await self._announced(offers)
        situation = Situation(
            state=_state(await self._settings.get(_SETTING) or {}),
            offers=offers,
            live=live,
            paused_queues=paused,
            room=None if self._observe else self._room(),
            full_repositories=self._full_repositories(),
        )
        return explain(job, situation, self._clock.now())

    # ------------------------------------------------------------------------------------------ for the engine

    async def open(self, runs: Runs | None) -> None:
        """Remember what was said in an earlier life."""
        self._runs = runs
        self._state = _state(await self._settings.get(_SETTING) or {})

    def close(self) -> None:
        """Take no more jobs: the hub is closing."""
        self._closing = True

    def wake(self) -> None:
        """Have another look: something is free, or something waits."""
        self._wake.set()

    async def dispatch(self) -> None:
        """Take jobs to places as both come; run by the hub as long as it is open."""
        while not self._closing:
            self._wake = anyio.Event()
            pause = self._config.poll_interval.total_seconds()
            try:
                pause = await self._look(pause)
            except RunnerHubError as error:
                _log.warning("nothing can be dispatched now: %s", error)
            await wait_at_most(self._clock, pause, self._wake)

    async def announce(self) -> None:
        """Tell processes that only look what places this hub has."""
        offers = [
            {"name": one.name, "labels": key(one.labels), "busy": one.busy, "most": one.most, "only": sorted(one.only)}
            for one in self._pool.own.offers()
        ]
        await self._settings.put(self._announcement, {"at": self._clock.now().isoformat(), "offers": offers})

    async def retract(self) -> None:
        """Take the announcement back."""
        await self._settings.put(self._announcement, None)

    # ------------------------------------------------------------------------------------------------- private

    async def _look(self, pause: float) -> float:
        if self._state.mode is not Mode.RUNNING or self._runs is None or self._room() <= 0:
            return pause
        offers = self._pool.offers()
        if not any(offer.free for offer in offers):
            return min(pause, self._pool.own.next_resume() or pause)
        stats = await self._queue.stats()
        for start in plan(stats.demand, offers, self._room(), self._place):
            # A lease that was taken must be carried: nothing may come between.
            with anyio.CancelScope(shield=True):
                await self._fill(start)
        if stats.next_due is not None:
            pause = min(pause, max(0.0, (stats.next_due - self._clock.now()).total_seconds()))
        return min(pause, self._pool.own.next_resume() or pause)

    async def _fill(self, start: Start) -> None:
        left, exclude = start.count, self._full_repositories()
        while left > 0:
            wanted = Wanted(labels=start.offer.labels, exclude=exclude, only=start.offer.only)
            leases = await self._queue.lease(left, wanted, self._parts.hub, self._config.lease_ttl)
            for lease in leases:
                if lease.repository in self._full_repositories():
                    await self._queue.nack(lease)
                else:
                    await self._begin(lease, start.offer)
                    left -= 1
            full = self._full_repositories()
            if not leases or full <= exclude:
                return
            exclude = full

    async def _begin(self, lease: Lease, offer: Offer) -> None:
        if self._runs is None:
            return
        if offer.pool:
            self._runs.begin(lease, self._pool.own.pools[offer.name])
            return
        try:
            await self._pool.registered.assign(lease, offer.name)
        except RunnerHubError as error:
            _log.warning("job %s goes back into the queue: %s", lease.job_id, error)
            self._runs.begin(lease, None)

    def _active(self) -> Counter[str]:
        leases = [run.lease for run in self._runs.live.values()] if self._runs else []
        return Counter(lease.repository for lease in [*leases, *self._pool.registered.leases.values()])

    def _room(self) -> int:
        most = self._config.max_jobs
        return 2**31 if most is None else most - self._active().total()

    def _full_repositories(self) -> frozenset[str]:
        most = self._config.max_jobs_per_repository
        if most is None:
            return frozenset()
        return frozenset(repository for repository, count in self._active().items() if count >= most)

    async def _become(self, kind: type[Event], by: str, why: str) -> SchedulerState:
        now = self._clock.now()
        state = SchedulerState(mode=_MODES[kind], by=by, at=now, why=why)
        await self._settings.put(_SETTING, _plain(state))
        self._state = state
        await self._parts.ledger.tell(kind(at=now, data={"by": by, "why": why}))
        self.wake()
        return state

    async def _control(self, queue: str, action: Control, kind: type[Event], by: str, why: str) -> None:
        await self._queue.control(queue, action)
        now = self._clock.now()
        state = SchedulerState(mode=Mode.PAUSED, by=by, at=now, why=why)
        await self._settings.put(f"queue:{queue}", _plain(state) if action is Control.PAUSE else None)
        await self._parts.ledger.tell(kind(at=now, data={"queue": queue, "by": by, "why": why}))
        self.wake()

    def _hear(self, event: Event) -> None:
        if mode := _MODES.get(type(event)):
            self._state = SchedulerState(mode=mode, by=event.data.get("by", ""), at=event.at, why=event.data.get("why", ""))
        if isinstance(event, _WAKING):
            self.wake()

    @property
    def _announcement(self) -> str:
        return f"hub:{self._config.name}"

    async def _announced(self, registered: list[Offer]) -> tuple[bool, list[Offer]]:
        found = await self._settings.get(self._announcement)
        if found is None or self._clock.now() - datetime.fromisoformat(found["at"]) > 3 * self._config.lease_ttl:
            return False, registered
        offers = [
            Offer(
                name=one["name"],
                labels=from_key(one["labels"]),
                busy=one["busy"],
                most=one["most"],
                only=frozenset(one["only"]),
            )
            for one in found["offers"]
        ]
        return True, [*(offer for offer in registered if not offer.pool), *offers]


def _plain(state: SchedulerState) -> dict[str, Any]:
    return {"mode": state.mode.value, "by": state.by, "at": state.at.isoformat() if state.at else None, "why": state.why}


def _state(plain: Mapping[str, Any]) -> SchedulerState:
    if not plain:
        return SchedulerState()
    at = datetime.fromisoformat(plain["at"]) if plain["at"] else None
    return SchedulerState(mode=Mode(plain["mode"]), by=plain["by"], at=at, why=plain["why"])
