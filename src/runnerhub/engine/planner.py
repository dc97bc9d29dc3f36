"""Decides, purely: how many jobs go where now, how many warm runners there should be, and why a job waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from attrs import evolve, field, frozen

from runnerhub.model.config import Placement
from runnerhub.model.job import Explanation, Job, Reason
from runnerhub.model.labels import LabelSet, fits
from runnerhub.model.queue import Wanted
from runnerhub.model.status import Mode, SchedulerState


@frozen(kw_only=True)
class Offer:
    """A place for jobs: a pool of the hub's own, or a registered runner. `most` is how many it takes in all."""

    name: str
    labels: LabelSet
    busy: int
    most: int
    pool: bool = True
    only: frozenset[str] = frozenset()
    backing_off: bool = False
    online: bool = True

    @property
    def free(self) -> int:
        """How many more it takes now."""
        return max(0, self.most - self.busy) if self.online and not self.backing_off else 0

    def takes(self, job: Job) -> bool:
        """Whether it could ever take the job."""
        return fits(job.request.label_set, self.labels) and Wanted(labels=self.labels, only=self.only).takes(job.repository)


@frozen
class Start:
    """Take up to `count` jobs to this place."""

    offer: Offer
    count: int


Place: TypeAlias = Callable[[LabelSet, Sequence[Offer]], Offer]
"""A placement strategy: which of the places that fit, have room and are equally special gets the next job (never empty)."""


def pack(_: LabelSet, offers: Sequence[Offer]) -> Offer:
    """The fullest one, so that others may become empty."""
    return max(offers, key=lambda offer: offer.busy)


def spread(_: LabelSet, offers: Sequence[Offer]) -> Offer:
    """The one with the fewest jobs."""
    return min(offers, key=lambda offer: offer.busy)


def least_loaded(_: LabelSet, offers: Sequence[Offer]) -> Offer:
    """The one with the smallest part of its room in use."""
    return min(offers, key=lambda offer: offer.busy / offer.most)


STRATEGIES: Mapping[Placement, Place] = {
    Placement.PACK: pack,
    Placement.SPREAD: spread,
    Placement.LEAST_LOADED: least_loaded,
}


def plan(demand: Mapping[LabelSet, int], offers: Sequence[Offer], room: int, place: Place = pack) -> list[Start]:
    """How many jobs go where: never more than `room`, never more than there is demand that fits.

    Demand with the fewest places goes first, to the least special of them, so that a place with rare labels stays free
    for those who need it; for the same reason the least special places take theirs first.
    """
    state = [offer for offer in offers if offer.free]
    starts: dict[int, int] = {}
    fitting = {labels: [index for index, offer in enumerate(state) if fits(labels, offer.labels)] for labels in demand}
    for labels in sorted(demand, key=lambda one: (len(fitting[one]), -len(one), sorted(one))):
        waiting = demand[labels]
        while waiting > 0 and room > 0:
            open_now = [index for index in fitting[labels] if state[index].free]
            if not open_now:
                break
            least = min(len(state[index].labels) for index in open_now)
            equal = [index for index in open_now if len(state[index].labels) == least]
            chosen = place(labels, [state[index] for index in equal])
            index = next(index for index in equal if state[index] is chosen)
            state[index] = evolve(chosen, busy=chosen.busy + 1)
            starts[index] = starts.get(index, 0) + 1
            waiting, room = waiting - 1, room - 1
    planned = [Start(state[index], count) for index, count in starts.items()]
    return sorted(planned, key=lambda start: len(start.offer.labels))


def warm(*, min_idle: int, idle: int, occupied: int, most: int) -> int:
    """How many warm runners to add (or, below zero, to remove) so that `min_idle` are ready and `most` is kept."""
    return max(0, min(min_idle, most - occupied)) - idle


@frozen(kw_only=True)
class Situation:
    """All that decides why a job waits."""

    state: SchedulerState
    offers: Sequence[Offer]
    live: bool = True
    paused_queues: Mapping[str, SchedulerState] = field(factory=dict)
    room: int | None = None
    full_repositories: frozenset[str] = frozenset()


def explain(job: Job, situation: Situation, now: datetime) -> Explanation:
    """Why a job stands where it stands; for one that waits, the first obstacle in the order a person would check."""

    def because(reason: Reason, message: str, since: datetime | None = None, pool: str | None = None) -> Explanation:
        return Explanation(job_id=job.id, reason=reason, message=message, since=since or job.updated_at, closest_pool=pool)

    if job.completed:
        return because(job.reason or Reason.EXITED, job.message or f"{job.conclusion}", job.completed_at, job.pool)
    if job.assigned:
        return because(Reason.STARTING, f"runner {job.runner_name} is starting", job.assigned_at, job.pool)
    if job.active:
        return because(Reason.RUNNING, f"running on {job.runner_name}", job.started_at, job.pool)
    if job.not_before and job.not_before > now:
        return because(Reason.DELAYED, f"not before {job.not_before.isoformat()}")
    if not situation.live:
        return because(Reason.NO_HUB, "no hub is running on this storage; start one")
    for state, what in ((situation.state, "the scheduler"), (situation.paused_queues.get(job.priority.queue), "its queue")):
        if state and state.mode is not Mode.RUNNING:
            reason = Reason.PAUSED if state.mode is Mode.PAUSED else Reason.DRAINING
            why = f": {state.why}" if state.why else ""
            return because(reason, f"{what} is {state.mode.value} by {state.by or 'somebody'}{why}", state.at)
    possible = [offer for offer in situation.offers if offer.takes(job)]
    if not possible:
        return _unmatched(job, situation.offers)
    closest = min(possible, key=lambda offer: (not offer.free, offer.backing_off, len(offer.labels)))
    name = closest.name
    if not any(offer.online for offer in possible):
        return because(Reason.NO_ONLINE_RUNNER, f"every runner that fits is offline (such as {name})", pool=name)
    if situation.room is not None and situation.room <= 0:
        return because(Reason.GLOBAL_QUOTA, "the hub runs as many jobs as max_jobs allows", pool=name)
    if job.repository in situation.full_repositories:
        message = f"{job.repository} runs as many jobs as max_jobs_per_repository allows"
        return because(Reason.REPOSITORY_QUOTA, message, pool=name)
    if any(offer.free for offer in possible):
        return because(Reason.READY, "next in line: it starts as soon as it is its turn", pool=name)
    if all(offer.backing_off for offer in possible if offer.online):
        return because(Reason.POOL_BACKING_OFF, f"runners of {name} failed to start; it tries again soon", pool=name)
    return because(Reason.POOL_FULL, f"every runner that fits is busy ({name}: {closest.busy} of {closest.most})", pool=name)


def _unmatched(job: Job, offers: Sequence[Offer]) -> Explanation:
    wanted = job.request.label_set
    if not offers:
        message, name, missing = "there is no pool and no runner", None, wanted
    else:
        closest = min(offers, key=lambda offer: (len(wanted - offer.labels), not offer.pool, offer.name))
        name, missing = closest.name, wanted - closest.labels
        if missing:
            message = f"no pool or runner has all its labels; {name} comes closest and lacks {', '.join(sorted(missing))}"
        else:
            message = f"{name} has its labels, but takes no jobs of {job.repository}"
    return Explanation(
        job_id=job.id,
        reason=Reason.NO_MATCHING_POOL,
        message=message,
        closest_pool=name,
        missing_labels=tuple(sorted(missing)),
        since=job.updated_at,
    )
