"""A job only moves forward, whatever facts come, in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub.model.container import ExitStatus
from runnerhub.model.job import Conclusion, Job, JobRequest, JobStatus, Reason
from runnerhub.model.lifecycle import (
    Assigned,
    Cancelled,
    CancelRequested,
    Ended,
    Fact,
    Interrupted,
    Reported,
    Started,
    TimedOut,
    advance,
    create,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = st.integers(0, 4)
EXITS = st.builds(
    ExitStatus,
    code=st.none() | st.integers(0, 255),
    signal=st.none() | st.just(9),
    oom=st.booleans(),
    lost=st.sampled_from(["", "gone"]),
)
FACTS: st.SearchStrategy[Fact] = st.one_of(
    st.builds(Assigned, ATTEMPT, st.just("runner_1"), st.just("r-1"), st.just("container_1"), st.just("pool")),
    st.builds(Started, ATTEMPT),
    st.builds(Ended, ATTEMPT, EXITS),
    st.builds(TimedOut, ATTEMPT, st.just("too long")),
    st.builds(Interrupted, ATTEMPT, st.just("broken"), st.booleans(), st.integers(1, 3)),
    st.builds(CancelRequested, st.just("ann"), st.just("why")),
    st.builds(Cancelled, ATTEMPT),
    st.builds(Reported, ATTEMPT, st.sampled_from(list(Conclusion)), st.none() | st.integers(0, 3), st.just("said")),
)
ORDER = {JobStatus.QUEUED: 0, JobStatus.IN_PROGRESS: 1, JobStatus.COMPLETED: 2}


def new(delay: int = 0) -> Job:
    request = JobRequest(repository="octo/app", job_name="a", delay=timedelta(seconds=delay))
    return create(request, job_id="job_1", delegation_id="del_1", now=NOW)[0]


def after(job: Job, *facts: Fact) -> Job:
    for fact in facts:
        changed = advance(job, fact, NOW)
        assert changed is not None, fact
        job = changed[0]
    return job


ASSIGNED = Assigned(1, "runner_1", "r-1", "container_1", "pool")


@given(st.lists(FACTS, max_size=25))
def test_forward_only(facts: list[Fact]) -> None:
    job, now = new(), NOW
    for fact in facts:
        now += timedelta(seconds=1)
        changed = advance(job, fact, now)
        if changed is None:
            continue
        following, event = changed
        assert not job.completed
        assert following.version == job.version + 1
        assert following.updated_at == now
        assert event.job_id == job.id
        assert event.at == now
        assert ORDER[following.status] >= ORDER[job.status]
        assert following.attempt in (job.attempt, job.attempt + 1)
        if following.attempt > job.attempt:
            assert isinstance(fact, Assigned)
        if following.status is JobStatus.IN_PROGRESS:
            assert following.runner_id is not None
        if following.completed:
            assert following.conclusion is not None
            assert following.completed_at == now
            if job.cancellation and isinstance(fact, Ended | Interrupted):
                assert following.conclusion is Conclusion.CANCELLED
        elif isinstance(fact, Interrupted):
            assert job.status is JobStatus.QUEUED
            assert following.interruptions == job.interruptions + 1 < fact.most
            assert following.runner_id is None
        job = following
    if job.completed:
        assert all(advance(job, fact, now) is None for fact in facts)


@pytest.mark.parametrize(
    ("exit_status", "conclusion", "reason", "message"),
    [
        (ExitStatus(code=0), Conclusion.SUCCESS, Reason.EXITED, ""),
        (ExitStatus(code=3), Conclusion.FAILURE, Reason.EXITED, "exit code 3"),
        (ExitStatus(code=139, signal=11), Conclusion.FAILURE, Reason.EXITED, "killed by signal 11"),
        (ExitStatus(code=137, signal=9, oom=True), Conclusion.FAILURE, Reason.OUT_OF_MEMORY, "killed: out of memory"),
        (ExitStatus(code=None, lost="gone"), Conclusion.FAILURE, Reason.INFRASTRUCTURE, "gone"),
        (ExitStatus(code=None), Conclusion.FAILURE, Reason.INFRASTRUCTURE, "exit status unknown"),
    ],
)
def test_how_it_ended_is_told_apart(exit_status: ExitStatus, conclusion: Conclusion, reason: Reason, message: str) -> None:
    job = after(new(), ASSIGNED, Started(1), Ended(1, exit_status))
    assert (job.conclusion, job.reason, job.message, job.exit_code) == (conclusion, reason, message, exit_status.code)
    assert job.succeeded is (conclusion is Conclusion.SUCCESS)


def test_a_job_that_had_begun_is_not_run_again() -> None:
    job = after(new(), ASSIGNED, Started(1), Interrupted(1, "engine gone"))
    assert (job.conclusion, job.reason, job.interruptions) == (Conclusion.FAILURE, Reason.INFRASTRUCTURE, 1)


def test_interruptions_before_it_began_are_bounded() -> None:
    job = new()
    for attempt in (1, 2):
        job = after(job, Assigned(attempt, "r", "r", "c"), Interrupted(attempt, "no room", most=3))
        assert job.status is JobStatus.QUEUED
    job = after(job, Assigned(3, "r", "r", "c"), Interrupted(3, "no room", most=3))
    assert (job.conclusion, job.interruptions, job.message) == (Conclusion.FAILURE, 3, "no room")


def test_cancelling_tells_who_and_waits_for_what_runs() -> None:
    waiting = after(new(), CancelRequested("ann", "wrong"))
    assert (waiting.conclusion, waiting.message) == (Conclusion.CANCELLED, "cancelled by ann")
    running = after(new(), ASSIGNED, Started(1), CancelRequested("ann"))
    assert running.status is JobStatus.IN_PROGRESS
    assert advance(running, CancelRequested("bob"), NOW) is None
    assert after(running, Cancelled(1)).message == "cancelled by ann"
    assert after(new(), ASSIGNED, Cancelled(1)).message == "cancelled by the hub"
    assert after(new(), ASSIGNED, CancelRequested("ann"), Interrupted(1, "x")).conclusion is Conclusion.CANCELLED
    assert advance(running, Cancelled(7), NOW) is None


def test_a_new_job_knows_when_it_may_start() -> None:
    assert new().not_before is None
    assert new(30).not_before == NOW + timedelta(seconds=30)
    job = new()
    assert (job.labels, job.job_name, job.repository, job.active, job.assigned) == ((), "a", "octo/app", False, False)
