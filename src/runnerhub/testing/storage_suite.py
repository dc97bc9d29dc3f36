"""What every storage must do: changes whole or not at all, one order of events, logs that go on where they ended."""

from __future__ import annotations

import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from runnerhub.model.change import Ack, JobChange
from runnerhub.model.config import BackendOptions
from runnerhub.model.errors import ConflictError
from runnerhub.model.event import JobAssigned, JobCompleted, JobQueued, RunnerRegistered, RunnerRemoved
from runnerhub.model.job import Conclusion, Job, JobQuery, JobStatus
from runnerhub.model.log import LogChunk, LogPosition
from runnerhub.model.queue import Outcome, Wanted
from runnerhub.protocols import HasQueue, StorageBackend
from runnerhub.testing.clock import FakeClock
from runnerhub.testing.samples import NOW, entry, full_job, job, options_for, request, runner

TTL = timedelta(seconds=15)
ANY = Wanted(labels=frozenset())


def _new(one: Job) -> JobChange:
    return JobChange(job=one, event=JobQueued(at=one.created_at, job_id=one.id, repository=one.repository, data={"☃": [1]}))


def _next(one: Job, **changes: Any) -> JobChange:
    after = evolve(one, version=one.version + 1, updated_at=one.updated_at + timedelta(seconds=1), **changes)
    return JobChange(job=after, event=JobAssigned(at=after.updated_at, job_id=one.id))


def _done(one: Job, conclusion: Conclusion = Conclusion.SUCCESS, after: int = 60) -> JobChange:
    completed = evolve(
        one,
        version=one.version + 1,
        status=JobStatus.COMPLETED,
        conclusion=conclusion,
        completed_at=NOW + timedelta(seconds=after),
    )
    return JobChange(job=completed, event=JobCompleted(at=NOW, job_id=one.id))


def _chunk(first: int, text: bytes, cursor: str) -> LogChunk:
    lines = text.count(b"\n")
    return LogChunk(1, first, lines, len(text), ((0, 1.5), (1, 2.5)), "step ☃", zlib.compress(text), cursor)


class StorageSuite:
    """Subclass it with a fixture `storage` that gives an opened storage made with the fixture `options`."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of the storage."""
        return FakeClock()

    @pytest.fixture
    def options(self, clock: FakeClock, tmp_path: Path) -> BackendOptions:
        """What the storage is made with."""
        return options_for(clock, tmp_path)

    async def test_every_field_of_a_job_survives(self, storage: StorageBackend) -> None:
        one = evolve(full_job(), request=request(github_job_id=77))
        (event,) = await storage.jobs.save([_new(one)])
        assert event is not None
        assert event.data == {"☃": [1]}
        assert await storage.jobs.get(one.id) == one
        assert await storage.jobs.find("octo/app", 77) == one
        assert await storage.jobs.get("job_unknown") is None
        assert await storage.jobs.find("octo/app", 78) is None

    async def test_a_change_needs_the_next_version(self, storage: StorageBackend) -> None:
        one = job()
        await storage.jobs.save([_new(one)])
        later = _next(one, message="first")
        stored = await storage.jobs.save([later, _next(one, message="second"), _next(later.job, message="third")])
        assert [event is not None for event in stored] == [True, False, True]
        found = await storage.jobs.get(one.id)
        assert found is not None
        assert (found.message, found.version) == ("third", 2)
        assert len(await storage.events.after(0)) == 3

    async def test_a_known_job_is_not_stored_twice(self, storage: StorageBackend) -> None:
        one = job(request=request(github_job_id=5))
        twin = job(2, request=request(github_job_id=5))
        other = job(3, request=request(repository="octo/other", github_job_id=5))
        stored = await storage.jobs.save([_new(one), _new(one), _new(twin), _new(other)])
        assert [event is not None for event in stored] == [True, False, False, True]

    async def test_pages_are_sorted_filtered_and_counted(self, storage: StorageBackend) -> None:
        jobs = [job(number) for number in range(1, 8)]
        await storage.jobs.save([_new(one) for one in jobs])
        await storage.jobs.save([_done(jobs[0]), _done(jobs[1], Conclusion.FAILURE)])
        await storage.jobs.save([_next(jobs[2], runner_id="runner_1"), _next(jobs[3], status=JobStatus.IN_PROGRESS)])

        async def ids(**query: object) -> list[int]:
            page = await storage.jobs.list(JobQuery(**query))  # type: ignore[arg-type]
            return [int(one.id[-4:]) for one in page.jobs]

        assert await ids() == [7, 6, 5, 4, 3, 2, 1]
        assert await ids(descending=False, limit=2, offset=3) == [4, 5]
        assert await ids(status=JobStatus.COMPLETED) == [2, 1]
        assert await ids(conclusions=(Conclusion.FAILURE,)) == [2]
        assert await ids(runner_id="runner_1") == [3]
        assert await ids(active=True) == [4, 3]
        assert await ids(active=False, status=JobStatus.QUEUED) == [7, 6, 5]
        assert await ids(repository="octo/none") == []
        assert (await storage.jobs.list(JobQuery(limit=2))).total == 7
        counts = await storage.jobs.counts()
        assert {name: counts.get(name, 0) for name in ("queued", "in_progress", "completed", "success", "failure")} == {
            "queued": 4,
            "in_progress": 1,
            "completed": 2,
            "success": 1,
            "failure": 1,
        }

    async def test_old_jobs_go_with_their_logs(self, storage: StorageBackend) -> None:
        jobs = [job(number) for number in range(1, 5)]
        await storage.jobs.save([_new(one) for one in jobs])
        await storage.jobs.save([_done(one, after=number) for number, one in enumerate(jobs[:3])])
        for one in jobs:
            await storage.logs.append(one.id, [_chunk(1, b"x\n", "1")], LogPosition(lines=1))
        assert await storage.logs.prune(NOW + timedelta(seconds=1), 10) == 1
        assert await storage.logs.read(jobs[0].id) == []
        assert await storage.jobs.prune(NOW + timedelta(seconds=10), 2) == 2
        assert await storage.jobs.prune(NOW + timedelta(seconds=10), 2) == 1
        assert [one.id for one in (await storage.jobs.list(JobQuery())).jobs] == [jobs[3].id]
        assert await storage.logs.read(jobs[1].id) == []
        assert len(await storage.logs.read(jobs[3].id)) == 1
        assert (await storage.jobs.counts()).get("completed", 0) == 0

    async def test_a_runner_changes_with_its_job(self, storage: StorageBackend) -> None:
        one, its = job(), runner()
        await storage.jobs.save([_new(one)])
        await storage.jobs.save([evolve(_next(one), runner=its)])
        assert await storage.runners.get(its.id) == its
        stale = evolve(_next(one), remove_runner=its.id)
        assert await storage.jobs.save([stale]) == [None]
        assert await storage.runners.get(its.id) == its
        (event,) = await storage.jobs.save([evolve(_next(_next(one).job), remove_runner=its.id)])
        assert event is not None
        assert await storage.runners.get(its.id) is None

    async def test_runners_have_names_of_their_own(self, storage: StorageBackend) -> None:
        first, second = runner(1), runner(2)
        event = await storage.runners.save(first, RunnerRegistered(at=NOW, runner_id=first.id))
        assert event is not None
        assert event.sequence == 1
        await storage.runners.save(second)
        with pytest.raises(ConflictError, match="'runner-1'"):
            await storage.runners.save(evolve(second, name="runner-1"))
        assert await storage.runners.list() == [first, second]
        assert await storage.runners.delete("runner_none", RunnerRemoved(at=NOW)) is None
        assert await storage.runners.delete(first.id, RunnerRemoved(at=NOW)) is not None
        assert await storage.runners.list() == [second]
        assert await storage.events.last() == 2

    async def test_events_have_one_order(self, storage: StorageBackend) -> None:
        assert await storage.events.last() == 0
        for number in range(5):
            stored = await storage.events.append(JobQueued(at=NOW + timedelta(seconds=number), job_id=f"job_{number}"))
            assert stored.sequence == number + 1
        events = await storage.events.after(1, limit=3)
        assert [event.sequence for event in events] == [2, 3, 4]
        assert all(type(event) is JobQueued for event in events)
        assert events[0] == JobQueued(at=NOW + timedelta(seconds=1), job_id="job_1", sequence=2)
        assert await storage.events.prune(NOW + timedelta(seconds=3), 2) == 2
        assert await storage.events.prune(NOW + timedelta(seconds=3), 2) == 1
        assert [event.sequence for event in await storage.events.after(0)] == [4, 5]
        assert await storage.events.prune(NOW + timedelta(days=1), 10) == 2
        assert await storage.events.after(0) == []
        assert (await storage.events.append(JobQueued(at=NOW))).sequence == 6

    async def test_logs_go_on_where_they_ended(self, storage: StorageBackend) -> None:
        assert await storage.logs.position("job_1") == LogPosition()
        first, second = _chunk(1, b"a\nb\n", "4"), _chunk(3, b"c\nd\ne\n", "10")
        at = LogPosition(lines=2, size=4, attempt=1, cursor="4", step="step ☃")
        await storage.logs.append("job_1", [first], at)
        assert await storage.logs.position("job_1") == at
        end = LogPosition(lines=5, size=10, attempt=1, cursor="10", truncated=True)
        await storage.logs.append("job_1", [first, second], end)
        await storage.logs.append("job_1", [first], at)
        assert await storage.logs.position("job_1") == end
        assert list(await storage.logs.read("job_1")) == [first, second]
        assert list(await storage.logs.read("job_1", after=2)) == [second]
        assert list(await storage.logs.read("job_1", after=1, limit=1)) == [first]
        assert list(await storage.logs.read("job_1", after=5)) == []
        assert list(await storage.logs.read("job_2")) == []

    async def test_settings_are_kept_until_deleted(self, storage: StorageBackend) -> None:
        assert await storage.settings.get("who") is None
        await storage.settings.put("who", {"by": "ann ☃", "n": 1})
        await storage.settings.put("who", {"by": "bob", "n": None})
        assert await storage.settings.get("who") == {"by": "bob", "n": None}
        await storage.settings.put("who", None)
        await storage.settings.put("who", None)
        assert await storage.settings.get("who") is None

    async def test_a_job_and_its_entry_are_one_change(self, storage: StorageBackend, clock: FakeClock) -> None:
        if not isinstance(storage, HasQueue):
            return  # nothing to keep together: the ledger puts and acknowledges by itself
        async with storage.queue() as queue:
            one, other = job(1), job(2)
            await storage.jobs.save([evolve(_new(each), put=entry(each.id, clock)) for each in (one, other)])
            assert await storage.jobs.save([evolve(_new(one), put=entry("job_x", clock))]) == [None]
            leases = await queue.lease(5, ANY, "hub", TTL)
            assert [lease.job_id for lease in leases] == [one.id, other.id]
            (again,) = [lease for lease in await queue.reap("new", TTL, frozenset({"hub"})) if lease.job_id == one.id]
            stale, live = (evolve(_done(one), ack=Ack(lease, Outcome.COMPLETED)) for lease in (leases[0], again))
            assert await storage.jobs.save([stale]) == [None]
            unchanged = await storage.jobs.get(one.id)
            assert unchanged == one
            (event,) = await storage.jobs.save([live])
            assert event is not None
            assert await queue.ack([Ack(again, Outcome.COMPLETED)]) == [False]
            third = job(3)
            await storage.jobs.save([evolve(_new(third), put=entry(third.id, clock))])
            await storage.jobs.save([evolve(_done(third, Conclusion.CANCELLED), withdraw=True)])
            assert await queue.lease(5, ANY, "hub", TTL) == []
            assert (await queue.stats()).queues["normal-priority"].waiting == 0
