"""The only writer of jobs: advance, save with a version check, and tell the bus."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from random import Random

from runnerhub.engine.bus import Bus
from runnerhub.model import lifecycle
from runnerhub.model.change import Ack, JobChange
from runnerhub.model.errors import ConflictError, LeaseLostError, NotFoundError
from runnerhub.model.event import Event
from runnerhub.model.ids import Ids
from runnerhub.model.job import Conclusion, Job, JobRequest, JobStatus
from runnerhub.model.lifecycle import Fact
from runnerhub.model.queue import Lease, Outcome, QueueEntry
from runnerhub.model.runner import Runner
from runnerhub.protocols import Clock, QueueBackend, StorageBackend

_log = logging.getLogger("runnerhub.ledger")
_REMEMBERED = 10_000
_TRIES = 20
_OUTCOMES = {Conclusion.SUCCESS: Outcome.COMPLETED, Conclusion.CANCELLED: Outcome.CANCELLED}


class Ledger:
    """Writes jobs. `together` says that the queue is the storage's own, so that both change in one transaction."""

    def __init__(
        self,
        storage: StorageBackend,
        queue: QueueBackend,
        bus: Bus,
        clock: Clock,
        *,
        random: Random,
        weights: Mapping[str, float],
        together: bool,
    ) -> None:
        self._storage, self._queue, self._bus, self._clock = storage, queue, bus, clock
        self._together = together
        self._weights = weights
        self._ids = Ids(random)
        self._known: OrderedDict[str, Job] = OrderedDict()

    def new_id(self, prefix: str) -> str:
        """A new id."""
        return self._ids.new(prefix, self._clock.now())

    async def create(self, requests: Sequence[JobRequest], retry_of: str | None = None) -> list[Job]:
        """Accept jobs: durable when this returns. A request whose (repository, github_job_id) is known gives that job."""
        now = self._clock.now()
        changes = []
        for request in requests:
            job, event = lifecycle.create(
                request, job_id=self.new_id("job"), delegation_id=self.new_id("del"), now=now, retry_of=retry_of
            )
            changes.append(JobChange(job=job, event=event, put=self._entry(job) if self._together else None))
        saved = await self._storage.jobs.save(changes)
        jobs = []
        for change, stored in zip(changes, saved, strict=True):
            if stored is None:
                jobs.append(await self._twin(change.job.request))
            else:
                jobs.append(self._remember(change.job))
        if not self._together:
            await self._queue.put([self._entry(job) for job in jobs if job.status is JobStatus.QUEUED])
        for stored in saved:
            self._publish(stored)
        return jobs

    async def job(self, job_id: str) -> Job:
        """The job as this process last saw it: good enough to advance, since a save checks the version."""
        return self._known.get(job_id) or await self.fresh(job_id)

    async def ended(self, job_id: str) -> Job | None:
        """The job, if it has completed: that never changes any more. Raises `NotFoundError`."""
        seen = self._known.get(job_id)
        job = seen if seen and seen.completed else await self.fresh(job_id)
        return job if job.completed else None

    async def fresh(self, job_id: str) -> Job:
        """The job as it is stored. Raises `NotFoundError`."""
        job = await self._storage.jobs.get(job_id)
        if job is None:
            self._known.pop(job_id, None)
            raise NotFoundError("job", job_id)
        return self._remember(job)

    async def advance(
        self,
        job: Job,
        fact: Fact,
        *,
        lease: Lease | None = None,
        runner: Runner | None = None,
        remove_runner: str | None = None,
    ) -> Job | None:
        """Write what a fact makes of the job; `None` when it makes nothing (a repeat, late, an older attempt).

        With a lease, the job's end ends the lease in the same breath. Raises `LeaseLostError` when another owner has it.
        """
        for _ in range(_TRIES):
            change = self._change(job, fact, lease, runner, remove_runner)
            if change is None:
                return None
            (stored,) = await self._storage.jobs.save([change])
            if stored is not None:
                await self._settle(change, stored, lease)
                return change.job
            seen, job = job, await self.fresh(job.id)
            if job.version == seen.version:
                raise LeaseLostError(f"job {job.id}: the lease has another owner now")
        raise ConflictError(f"job {job.id} changes too quickly to be written")

    async def tell(self, event: Event) -> None:
        """Store and hand out an event that belongs to no job's change."""
        self._bus.publish(await self._storage.events.append(event))

    async def save_runner(self, runner: Runner, event: Event | None = None) -> None:
        """Write a runner, with its event."""
        self._publish(await self._storage.runners.save(runner, event))

    async def delete_runner(self, runner_id: str, event: Event | None = None) -> None:
        """Delete a runner, with its event."""
        self._publish(await self._storage.runners.delete(runner_id, event))

    async def put_again(self, jobs: Sequence[Job]) -> None:
        """Queue entries for jobs that wait; those that have one keep it."""
        await self._queue.put([self._entry(job) for job in jobs])

    async def finish(self, lease: Lease, job: Job | None) -> None:
        """End the lease of a job that is over already (or gone)."""
        outcome = _outcome(job) if job and job.completed else Outcome.CANCELLED
        await self._queue.ack([Ack(lease, outcome)])

    def _change(
        self, job: Job, fact: Fact, lease: Lease | None, runner: Runner | None, remove_runner: str | None
    ) -> JobChange | None:
        advanced = lifecycle.advance(job, fact, self._clock.now())
        if advanced is None:
            return None
        after, event = advanced
        over = after.completed and self._together
        return JobChange(
            job=after,
            event=event,
            ack=Ack(lease, _outcome(after)) if over and lease else None,
            withdraw=over and lease is None,
            runner=runner,
            remove_runner=remove_runner,
        )

    async def _settle(self, change: JobChange, event: Event, lease: Lease | None) -> None:
        self._remember(change.job)
        if change.job.completed and lease and not self._together:
            (ended,) = await self._queue.ack([Ack(lease, _outcome(change.job))])
            if not ended:
                _log.warning("job %s ended, but its lease had another owner by then", change.job.id)
        self._bus.publish(event)

    async def _twin(self, request: JobRequest) -> Job:
        if request.github_job_id is not None:
            job = await self._storage.jobs.find(request.repository, request.github_job_id)
            if job is not None:
                return job
        raise ConflictError(f"job {request.job_name!r} of {request.repository} could not be stored: its id exists")

    def _publish(self, event: Event | None) -> None:
        if event is not None:
            self._bus.publish(event)

    def _remember(self, job: Job) -> Job:
        self._known[job.id] = job
        self._known.move_to_end(job.id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return job

    def _entry(self, job: Job) -> QueueEntry:
        return QueueEntry(
            job_id=job.id,
            repository=job.repository,
            labels=job.request.label_set,
            priority=job.priority,
            enqueued_at=job.created_at,
            not_before=job.not_before,
            weight=self._weights.get(job.repository, 1.0),
        )


def _outcome(job: Job) -> Outcome:
    return _OUTCOMES.get(job.conclusion or Conclusion.FAILURE, Outcome.FAILED)
