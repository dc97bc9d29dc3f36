"""Storage and queue in this process's memory: nothing to install, and gone when the process ends."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from runnerhub.model.change import Ack, JobChange
from runnerhub.model.config import BackendOptions
from runnerhub.model.errors import ConflictError, NotFoundError
from runnerhub.model.event import Event
from runnerhub.model.job import QUEUES, Job, JobPage, JobQuery, Priority
from runnerhub.model.log import LogChunk, LogPosition
from runnerhub.model.queue import Control, Lease, Outcome, QueueCounts, QueueEntry, QueueStats, Wanted
from runnerhub.model.runner import Runner
from runnerhub.model.waiting import Waiting, WaitingIndex

_FAILED_KEPT = 10_000


class _Open:
    """Opening and closing cost nothing here."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to release."""


class MemoryStorage(_Open):
    """A `StorageBackend` and, by `queue()`, its own queue. A change is made without an await: whole or not at all."""

    durable = False

    def __init__(self, options: BackendOptions) -> None:
        self._queue = MemoryQueue(options)
        self.events = _Events()
        self.runners = _Runners(self.events)
        self.logs = _Logs()
        self.settings = _Settings()
        self.jobs = _Jobs(self.events, self.runners, self.logs, self._queue)

    def queue(self) -> MemoryQueue:
        """The queue that changes together with the jobs."""
        return self._queue


class _Jobs:
    def __init__(self, events: _Events, runners: _Runners, logs: _Logs, queue: MemoryQueue) -> None:
        self._events, self._runners, self._logs, self._queue = events, runners, logs, queue
        self._jobs: dict[str, Job] = {}
        self._by_github: dict[tuple[str, int], str] = {}
        self._counts: Counter[str] = Counter()
        logs.jobs = self._jobs

    async def save(self, changes: Sequence[JobChange]) -> list[Event | None]:
        return [self._save(change) for change in changes]

    async def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    async def find(self, repository: str, github_job_id: int) -> Job | None:
        return self._jobs.get(self._by_github.get((repository, github_job_id), ""))

    async def list(self, query: JobQuery) -> JobPage:
        found = [job for job in self._jobs.values() if _matches(job, query)]
        found.sort(key=lambda job: (getattr(job, query.sort), job.id), reverse=query.descending)
        return JobPage(tuple(found[query.offset : query.offset + query.limit]), len(found))

    async def counts(self) -> Mapping[str, int]:
        return {name: number for name, number in self._counts.items() if number}

    async def prune(self, before: datetime, limit: int) -> int:
        old = [job for job in self._jobs.values() if job.completed_at and job.completed_at < before][:limit]
        for job in old:
            self._count(job, -1)
            del self._jobs[job.id]
            self._logs.forget(job.id)
            if job.request.github_job_id is not None:
                del self._by_github[job.repository, job.request.github_job_id]
        return len(old)

    def _save(self, change: JobChange) -> Event | None:
        job, known = change.job, self._jobs.get(change.job.id)
        if (known.version + 1 if known else 0) != job.version:
            return None
        github = (job.repository, job.request.github_job_id)
        if known is None and github[1] is not None and github in self._by_github:
            return None
        if change.runner is not None:
            self._runners.check(change.runner)
        if change.ack is not None and not self._queue.end(change.ack):
            return None
        if known is not None:
            self._count(known, -1)
        elif github[1] is not None:
            self._by_github[job.repository, github[1]] = job.id
        self._jobs[job.id] = job
        self._count(job, 1)
        if change.put is not None:
            self._queue.enter(change.put)
        if change.withdraw:
            self._queue.withdraw(job.id)
        if change.runner is not None:
            self._runners.known[change.runner.id] = change.runner
        if change.remove_runner is not None:
            self._runners.known.pop(change.remove_runner, None)
        return self._events.store(change.event)

    def _count(self, job: Job, step: int) -> None:
        self._counts[job.status.value] += step
        if job.conclusion is not None:
            self._counts[job.conclusion.value] += step


def _matches(job: Job, query: JobQuery) -> bool:
    return (
        (query.status is None or job.status is query.status)
        and (query.conclusions is None or job.conclusion in query.conclusions)
        and (query.repository is None or job.repository == query.repository)
        and (query.runner_id is None or job.runner_id == query.runner_id)
        and (query.active is None or job.active is query.active)
    )


class _Runners:
    def __init__(self, events: _Events) -> None:
        self._events = events
        self.known: dict[str, Runner] = {}

    async def save(self, runner: Runner, event: Event | None = None) -> Event | None:
        self.check(runner)
        self.known[runner.id] = runner
        return self._events.store(event) if event else None

    async def get(self, runner_id: str) -> Runner | None:
        return self.known.get(runner_id)

    async def list(self) -> list[Runner]:
        return sorted(self.known.values(), key=lambda runner: (runner.created_at, runner.id))

    async def delete(self, runner_id: str, event: Event | None = None) -> Event | None:
        if self.known.pop(runner_id, None) is None or event is None:
            return None
        return self._events.store(event)

    def check(self, runner: Runner) -> None:
        if any(other.name == runner.name and other.id != runner.id for other in self.known.values()):
            raise ConflictError(f"a runner named {runner.name!r} exists already; choose another name or delete it first")


class _Events:
    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._last = 0

    async def append(self, event: Event) -> Event:
        return self.store(event)

    async def after(self, sequence: int, limit: int = 500) -> list[Event]:
        if not self._events:
            return []
        start = max(0, sequence + 1 - self._events[0].sequence)
        return [self._events[index] for index in range(start, min(len(self._events), start + limit))]

    async def last(self) -> int:
        return self._last

    async def prune(self, before: datetime, limit: int) -> int:
        gone = 0
        while gone < limit and self._events and self._events[0].at < before:
            self._events.popleft()
            gone += 1
        return gone

    def store(self, event: Event) -> Event:
        self._last += 1
        stored = event.numbered(self._last)
        self._events.append(stored)
        return stored


class _Logs:
    def __init__(self) -> None:
        self._chunks: dict[str, list[LogChunk]] = {}
        self._positions: dict[str, LogPosition] = {}
        self.jobs: Mapping[str, Job] = {}

    async def append(self, job_id: str, chunks: Sequence[LogChunk], position: LogPosition) -> None:
        stored = self._chunks.setdefault(job_id, [])
        for chunk in chunks:
            if not stored or chunk.first_line > stored[-1].last_line:
                stored.append(chunk)
        if position.lines >= self._positions.get(job_id, LogPosition()).lines:
            self._positions[job_id] = position

    async def read(self, job_id: str, after: int = 0, limit: int = 16) -> Sequence[LogChunk]:
        chunks = self._chunks.get(job_id, [])
        start = bisect_left(chunks, after + 1, key=lambda chunk: chunk.last_line)
        return chunks[start : start + limit]

    async def position(self, job_id: str) -> LogPosition:
        return self._positions.get(job_id, LogPosition())

    async def prune(self, before: datetime, limit: int) -> int:
        old = [
            job_id
            for job_id in self._positions
            if (job := self.jobs.get(job_id)) and job.completed_at and job.completed_at < before
        ][:limit]
        for job_id in old:
            self.forget(job_id)
        return len(old)

    def forget(self, job_id: str) -> None:
        self._chunks.pop(job_id, None)
        self._positions.pop(job_id, None)


class _Settings:
    def __init__(self) -> None:
        self._values: dict[str, Mapping[str, Any]] = {}

    async def get(self, key: str) -> Mapping[str, Any] | None:
        return self._values.get(key)

    async def put(self, key: str, value: Mapping[str, Any] | None) -> None:
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = dict(value)


class MemoryQueue(_Open):
    """A `QueueBackend` on the pure index of waiting jobs. Every verb is done without an await: whole or not at all."""

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._waiting = WaitingIndex(options.ageing.total_seconds())
        self._delayed: list[tuple[datetime, str, QueueEntry]] = []
        self._due: dict[str, QueueEntry] = {}
        self._leases: dict[str, tuple[Lease, Waiting]] = {}
        self._owners: dict[str, float] = {}
        self._tokens: dict[str, int] = {}
        self._paused: set[str] = set()
        self._completed: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._failed_ids: dict[str, deque[str]] = {queue: deque(maxlen=_FAILED_KEPT) for queue in QUEUES}

    async def put(self, entries: Sequence[QueueEntry]) -> None:
        for entry in entries:
            self.enter(entry)

    async def lease(self, n: int, wanted: Wanted, owner: str, ttl: timedelta) -> list[Lease]:
        self._tick()
        self._live(owner, ttl)
        return [self._grant(waiting, owner) for waiting in self._waiting.take(wanted, n)]

    async def extend(self, owner: str, ttl: timedelta) -> frozenset[str]:
        self._live(owner, ttl)
        return frozenset(job_id for job_id, (lease, _) in self._leases.items() if lease.owner == owner)

    async def ack(self, acks: Sequence[Ack]) -> list[bool]:
        return [self.end(ack) for ack in acks]

    async def nack(self, lease: Lease, *, delay: timedelta | None = None, dead: bool = False) -> bool:
        held = self._release(lease)
        if held is None:
            return False
        if dead:
            self._fail(lease)
        elif delay:
            self._delay(evolve(held.entry, not_before=self._options.now() + delay))
        else:
            self._waiting.put_back(held)
        return True

    async def reap(self, owner: str, ttl: timedelta, previous: frozenset[str] = frozenset()) -> list[Lease]:
        now = self._options.monotonic()
        dead = {name for name, until in self._owners.items() if until <= now and name != owner} | previous
        self._live(owner, ttl)
        taken = []
        for job_id, (lease, waiting) in list(self._leases.items()):
            if lease.owner in dead:
                again = evolve(lease, owner=owner, token=self._token(job_id), taken_over=True)
                self._leases[job_id] = again, waiting
                taken.append(again)
        for name in dead - {owner}:
            self._owners.pop(name, None)
        return taken

    async def stats(self) -> QueueStats:
        self._tick()
        waiting, delayed, active = Counter[str](), Counter[str](), Counter[str]()
        for priority, number in self._waiting.by_priority().items():
            waiting[priority.queue] = number
        delayed.update(entry.priority.queue for entry in self._due.values())
        active.update(lease.priority.queue for lease, _ in self._leases.values())
        return QueueStats(
            queues={
                queue: QueueCounts(
                    waiting=waiting[queue],
                    active=active[queue],
                    delayed=delayed[queue],
                    completed=self._completed[queue],
                    failed=self._failed[queue],
                    paused=queue in self._paused,
                )
                for queue in QUEUES
            },
            demand=self._waiting.demand(),
            next_due=self._next_due(),
        )

    async def control(self, queue: str, action: Control) -> list[str]:
        if queue not in QUEUES:
            raise NotFoundError("queue", queue)
        priority = next(one for one in Priority if one.queue == queue)
        match action:
            case Control.PAUSE:
                self._paused.add(queue)
                self._waiting.pause(priority)
            case Control.RESUME:
                self._paused.discard(queue)
                self._waiting.resume(priority)
            case Control.LIST_FAILED:
                return list(self._failed_ids[queue])
            case Control.CLEAR_FAILED:
                cleared = list(self._failed_ids[queue])
                self._failed_ids[queue].clear()
                self._failed[queue] = 0
                return cleared
        return []

    # ------------------------------------------------------------------------- together with a change of a job

    def enter(self, entry: QueueEntry) -> None:
        """Put one entry, unless its job waits or is leased."""
        if entry.job_id in self._waiting or entry.job_id in self._due or entry.job_id in self._leases:
            return
        if entry.not_before is not None and entry.not_before > self._options.now():
            self._delay(entry)
        else:
            self._waiting.add(entry, self._options.monotonic())

    def withdraw(self, job_id: str) -> None:
        """Take an entry out; its job is over."""
        self._waiting.remove(job_id)
        self._due.pop(job_id, None)
        self._tokens.pop(job_id, None)

    def end(self, ack: Ack) -> bool:
        """End one lease for good, if it is the live one."""
        if self._release(ack.lease) is None:
            return False
        self._tokens.pop(ack.lease.job_id, None)
        if ack.outcome is Outcome.FAILED:
            self._fail(ack.lease)
        else:
            self._completed[ack.lease.priority.queue] += 1
        return True

    # ------------------------------------------------------------------------------------------------- private

    def _tick(self) -> None:
        now = self._options.now()
        while self._delayed and self._delayed[0][0] <= now:
            _, job_id, entry = heappop(self._delayed)
            if self._due.get(job_id) is entry:
                del self._due[job_id]
                self._waiting.add(entry, self._options.monotonic())
        while self._waiting.promote(self._options.monotonic()):
            pass

    def _next_due(self) -> datetime | None:
        while self._delayed and self._due.get(self._delayed[0][1]) is not self._delayed[0][2]:
            heappop(self._delayed)
        return self._delayed[0][0] if self._delayed else None

    def _delay(self, entry: QueueEntry) -> None:
        self._due[entry.job_id] = entry
        heappush(self._delayed, (entry.not_before or self._options.now(), entry.job_id, entry))

    def _live(self, owner: str, ttl: timedelta) -> None:
        self._owners[owner] = self._options.monotonic() + ttl.total_seconds()

    def _token(self, job_id: str) -> int:
        token = self._tokens[job_id] = self._tokens.get(job_id, 0) + 1
        return token

    def _grant(self, waiting: Waiting, owner: str) -> Lease:
        entry = waiting.entry
        lease = Lease(
            job_id=entry.job_id,
            repository=entry.repository,
            labels=entry.labels,
            priority=entry.priority,
            owner=owner,
            token=self._token(entry.job_id),
        )
        self._leases[entry.job_id] = lease, waiting
        return lease

    def _release(self, lease: Lease) -> Waiting | None:
        held = self._leases.get(lease.job_id)
        if held is None or (held[0].owner, held[0].token) != (lease.owner, lease.token):
            return None
        del self._leases[lease.job_id]
        return held[1]

    def _fail(self, lease: Lease) -> None:
        queue = lease.priority.queue
        self._failed[queue] += 1
        self._failed_ids[queue].append(lease.job_id)
