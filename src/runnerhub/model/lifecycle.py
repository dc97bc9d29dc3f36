"""How a job moves: forward only, and every fact of an older attempt is refused."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from attrs import evolve, frozen

from runnerhub.model.container import ExitStatus
from runnerhub.model.event import (
    Event,
    JobAssigned,
    JobCancelRequested,
    JobCompleted,
    JobQueued,
    JobRequeued,
    JobStarted,
)
from runnerhub.model.job import Cancellation, Conclusion, Job, JobRequest, JobStatus, Reason

MAX_INTERRUPTIONS = 3


@frozen
class Assigned:
    """The scheduler gave the job a runner; this begins attempt `attempt`."""

    attempt: int
    runner_id: str
    runner_name: str
    container_id: str
    pool: str | None = None


@frozen
class Started:
    """The work of this attempt begins now."""

    attempt: int


@frozen
class Ended:
    """The container of this attempt ended."""

    attempt: int
    exit: ExitStatus


@frozen
class TimedOut:
    """This attempt took too long."""

    attempt: int
    message: str


@frozen
class Interrupted:
    """The infrastructure failed this attempt."""

    attempt: int
    message: str
    retryable: bool = True
    most: int = MAX_INTERRUPTIONS
    reason: Reason = Reason.INFRASTRUCTURE


@frozen
class CancelRequested:
    """Somebody wants it to end."""

    by: str
    why: str = ""


@frozen
class Cancelled:
    """It has been stopped as somebody wanted (`attempt` 0: before any runner had it)."""

    attempt: int


@frozen
class Reported:
    """The agent of a registered runner says how it ended."""

    attempt: int
    conclusion: Conclusion
    exit_code: int | None = None
    message: str = ""


Fact: TypeAlias = Assigned | Started | Ended | TimedOut | Interrupted | CancelRequested | Cancelled | Reported
Change: TypeAlias = tuple[Job, Event]


def create(request: JobRequest, *, job_id: str, delegation_id: str, now: datetime, retry_of: str | None = None) -> Change:
    """A new job in the queue."""
    job = Job(
        id=job_id,
        delegation_id=delegation_id,
        request=request,
        created_at=now,
        updated_at=now,
        not_before=now + request.delay if request.delay else None,
        retry_of=retry_of,
    )
    return job, _event(JobQueued, job, now, priority=job.priority.value, labels=list(job.labels))


def advance(job: Job, fact: Fact, now: datetime) -> Change | None:
    """The job after a fact and the event that tells it; `None` for repeats, late facts and older attempts."""
    if job.completed:
        return None
    match fact:
        case CancelRequested(by, why):
            return _request_cancel(job, by, why, now)
        case Cancelled(attempt) if attempt == job.attempt or not job.active:
            who = job.cancellation.by if job.cancellation else "the hub"
            return _complete(job, now, Conclusion.CANCELLED, Reason.CANCELLED, f"cancelled by {who}")
        case Assigned(attempt):
            return _assign(job, fact, now) if not job.active and attempt == job.attempt + 1 else None
        case _ if fact.attempt != job.attempt or not job.active:
            return None
        case Started():
            return _start(job, now) if job.assigned else None
        case Ended(_, exit):
            return _end(job, exit, now)
        case TimedOut(_, message):
            return _complete(job, now, Conclusion.TIMED_OUT, Reason.TIMED_OUT, message)
        case Interrupted():
            return _interrupt(job, fact, now)
        case Reported(_, conclusion, exit_code, message):
            return _complete(job, now, conclusion, Reason.REPORTED, message, exit_code)
    return None


def _event(kind: type[Event], job: Job, now: datetime, **data: object) -> Event:
    return kind(
        at=now,
        job_id=job.id,
        runner_id=job.runner_id,
        repository=job.repository,
        data={"job_name": job.job_name, "attempt": job.attempt, **data},
    )


def _request_cancel(job: Job, by: str, why: str, now: datetime) -> Change | None:
    if job.cancellation is not None:
        return None
    asked = Cancellation(by=by, at=now, why=why)
    after = evolve(job, cancellation=asked, updated_at=now, version=job.version + 1)
    if not job.active:
        return _complete(after, now, Conclusion.CANCELLED, Reason.CANCELLED, f"cancelled by {by}", counted=True)
    return after, _event(JobCancelRequested, after, now, by=by, why=why)


def _assign(job: Job, fact: Assigned, now: datetime) -> Change:
    after = evolve(
        job,
        attempt=fact.attempt,
        runner_id=fact.runner_id,
        runner_name=fact.runner_name,
        container_id=fact.container_id,
        pool=fact.pool,
        assigned_at=now,
        reason=None,
        message="",
        updated_at=now,
        version=job.version + 1,
    )
    return after, _event(JobAssigned, after, now, runner_name=fact.runner_name, pool=fact.pool)


def _start(job: Job, now: datetime) -> Change:
    after = evolve(job, status=JobStatus.IN_PROGRESS, started_at=now, updated_at=now, version=job.version + 1)
    return after, _event(JobStarted, after, now, runner_name=job.runner_name)


def _end(job: Job, exit: ExitStatus, now: datetime) -> Change:  # noqa: A002  (the field's word)
    if job.cancellation is not None:
        return _complete(job, now, Conclusion.CANCELLED, Reason.CANCELLED, f"cancelled by {job.cancellation.by}", exit.code)
    if exit.code is None:
        return _complete(job, now, Conclusion.FAILURE, Reason.INFRASTRUCTURE, exit.lost or "exit status unknown")
    if exit.code == 0:
        return _complete(job, now, Conclusion.SUCCESS, Reason.EXITED, "", 0)
    if exit.oom:
        return _complete(job, now, Conclusion.FAILURE, Reason.OUT_OF_MEMORY, "killed: out of memory", exit.code)
    cause = f"killed by signal {exit.signal}" if exit.signal else f"exit code {exit.code}"
    return _complete(job, now, Conclusion.FAILURE, Reason.EXITED, cause, exit.code)


def _interrupt(job: Job, fact: Interrupted, now: datetime) -> Change:
    if job.cancellation is not None:
        return _complete(job, now, Conclusion.CANCELLED, Reason.CANCELLED, f"cancelled by {job.cancellation.by}")
    if job.status is JobStatus.IN_PROGRESS or not fact.retryable or job.interruptions + 1 >= fact.most:
        return _complete(job, now, Conclusion.FAILURE, fact.reason, fact.message, interrupted=True)
    after = evolve(
        job,
        interruptions=job.interruptions + 1,
        runner_id=None,
        runner_name=None,
        container_id=None,
        pool=None,
        assigned_at=None,
        reason=fact.reason,
        message=fact.message,
        updated_at=now,
        version=job.version + 1,
    )
    return after, _event(JobRequeued, after, now, message=fact.message)


def _complete(
    job: Job,
    now: datetime,
    conclusion: Conclusion,
    reason: Reason,
    message: str,
    exit_code: int | None = None,
    *,
    counted: bool = False,
    interrupted: bool = False,
) -> Change:
    after = evolve(
        job,
        status=JobStatus.COMPLETED,
        conclusion=conclusion,
        reason=reason,
        message=message,
        exit_code=exit_code,
        interruptions=job.interruptions + interrupted,
        completed_at=now,
        updated_at=now,
        version=job.version + (not counted),
    )
    data = {"conclusion": conclusion.value, "reason": reason.value, "exit_code": exit_code, "message": message}
    return after, _event(JobCompleted, after, now, **data)
