"""The ports: what a storage, a queue and a container backend must do. Everything a plugin author needs is here.

Every port is an async context manager: entering acquires, leaving releases; constructors acquire nothing. A port never
grows: a new ability is a new small protocol, asked for with `isinstance`. Every verb may be cancelled at any await;
then it either happened whole or not at all. All raise `UnavailableError` when the backend does not answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from runnerhub.model.change import Ack, JobChange
from runnerhub.model.container import Container, ContainerSpec, ExitStatus, LogFrame, Usage
from runnerhub.model.event import Event
from runnerhub.model.job import Job, JobPage, JobQuery
from runnerhub.model.log import LogChunk, LogPosition
from runnerhub.model.queue import Control, Lease, QueueEntry, QueueStats, Wanted
from runnerhub.model.runner import Runner

__all__ = [
    "Clock",
    "ContainerBackend",
    "EventStore",
    "HasQueue",
    "ImageScanner",
    "JobStore",
    "LogStore",
    "QueueBackend",
    "Resource",
    "ResumableLogs",
    "RunnerStore",
    "SecretRules",
    "SettingStore",
    "Stats",
    "StorageBackend",
    "Warm",
]


class Resource(Protocol):
    """Entering acquires, leaving releases; both in the same task."""

    async def __aenter__(self) -> Self:
        """Open: connect, create directories, check versions. Raises `UnavailableError`, `SchemaError`."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close. Never raises for what is already gone. May run while cancelled: shield what must still happen."""
        ...


class Clock(Protocol):
    """Where the outermost loops read the time."""

    def now(self) -> datetime:
        """The time of day, aware, UTC. Only for records: it may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back. For every wait and every deadline."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


# ---------------------------------------------------------------------------------------------------- storage


class JobStore(Protocol):
    """Jobs. Written by the ledger alone."""

    async def save(self, changes: Sequence[JobChange]) -> list[Event | None]:
        """Write changes, each whole or not at all, in the order given; durable when this returns.

        Returns, per change, its event with its sequence, or `None` where the version check (or, for a lease, the fence)
        refused it: then nothing of that change was written. A new job (version 0) whose (repository, github_job_id) or
        id exists is refused too. Raises `StorageFullError`.
        """
        ...

    async def get(self, job_id: str) -> Job | None:
        """The job, or `None`."""
        ...

    async def find(self, repository: str, github_job_id: int) -> Job | None:
        """The job of a GitHub job id, or `None`."""
        ...

    async def list(self, query: JobQuery) -> JobPage:
        """A page of jobs; ties are ordered by id."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Jobs by status, and completed ones by conclusion (`queued`, `in_progress`, `completed`, `success`, ...)."""
        ...

    async def prune(self, before: datetime, limit: int) -> int:
        """Delete up to `limit` jobs that completed before a time, with their logs. Returns how many went."""
        ...


class RunnerStore(Protocol):
    """Runners, the hub's own and registered ones."""

    async def save(self, runner: Runner, event: Event | None = None) -> Event | None:
        """Insert or replace, with an event. Raises `ConflictError` when another runner has the name."""
        ...

    async def get(self, runner_id: str) -> Runner | None:
        """The runner, or `None`."""
        ...

    async def list(self) -> list[Runner]:
        """All runners, oldest first."""
        ...

    async def delete(self, runner_id: str, event: Event | None = None) -> Event | None:
        """Delete, with an event. Deleting what is not there does nothing and stores no event."""
        ...


class EventStore(Protocol):
    """The log of events: one order, no gaps that matter, bounded by retention."""

    async def append(self, event: Event) -> Event:
        """Store an event that belongs to no change. Returns it with its sequence."""
        ...

    async def after(self, sequence: int, limit: int = 500) -> list[Event]:
        """Up to `limit` events above a sequence, in order."""
        ...

    async def last(self) -> int:
        """The highest sequence, 0 when there is none."""
        ...

    async def prune(self, before: datetime, limit: int) -> int:
        """Delete up to `limit` events older than a time. Sequences are never used again."""
        ...


class LogStore(Protocol):
    """Log chunks by job."""

    async def append(self, job_id: str, chunks: Sequence[LogChunk], position: LogPosition) -> None:
        """Add chunks and move the position, in one transaction. Chunks whose first line is stored already are left out."""
        ...

    async def read(self, job_id: str, after: int = 0, limit: int = 16) -> Sequence[LogChunk]:
        """Up to `limit` chunks in order, beginning with the one that holds line `after + 1`."""
        ...

    async def position(self, job_id: str) -> LogPosition:
        """Where the log ends; an empty position for an unknown job."""
        ...

    async def prune(self, before: datetime, limit: int) -> int:
        """Delete the logs of up to `limit` jobs that completed before a time."""
        ...


class SettingStore(Protocol):
    """Small settings that outlive a restart, such as who paused what."""

    async def get(self, key: str) -> Mapping[str, Any] | None:
        """The value, or `None`."""
        ...

    async def put(self, key: str, value: Mapping[str, Any] | None) -> None:
        """Set, or delete with `None`."""
        ...


class StorageBackend(Resource, Protocol):
    """Where everything is kept. `durable` says whether it outlives the process."""

    durable: bool

    @property
    def jobs(self) -> JobStore:
        """Jobs."""
        ...

    @property
    def runners(self) -> RunnerStore:
        """Runners."""
        ...

    @property
    def events(self) -> EventStore:
        """Events."""
        ...

    @property
    def logs(self) -> LogStore:
        """Log chunks."""
        ...

    @property
    def settings(self) -> SettingStore:
        """Settings."""
        ...


# ------------------------------------------------------------------------------------------------------ queue


class QueueBackend(Resource, Protocol):
    """Which job is next. At-least-once delivery, exactly one live lease for a job.

    Order: priority level first, within a level fair shares per repository (start-time fair queueing, by weight), within
    a repository first in first out. Every `ageing` that an entry waits lifts it a level, so that low never starves.
    Liveness is the owner's (`extend`), not the lease's: one heartbeat keeps all leases of an owner alive.
    """

    async def put(self, entries: Sequence[QueueEntry]) -> None:
        """Add entries; a job that waits or is leased already is left as it is."""
        ...

    async def lease(self, n: int, wanted: Wanted, owner: str, ttl: timedelta) -> list[Lease]:
        """Lease up to `n` entries that fit, best first, and keep the owner alive for `ttl`. Paused queues give nothing."""
        ...

    async def extend(self, owner: str, ttl: timedelta) -> frozenset[str]:
        """Keep the owner alive for `ttl`. Returns the job ids that it still holds: stop work on all others at once."""
        ...

    async def ack(self, acks: Sequence[Ack]) -> list[bool]:
        """End leases for good. `False` where the token is not the live one: then nothing was done."""
        ...

    async def nack(self, lease: Lease, *, delay: timedelta | None = None, dead: bool = False) -> bool:
        """Give a lease back: to the front of its repository's share, after a delay, or to the failed ones (`dead`)."""
        ...

    async def reap(self, owner: str, ttl: timedelta, previous: frozenset[str] = frozenset()) -> list[Lease]:
        """Take over the leases of owners that are dead (not extended in time) or named in `previous`: new owner, new token."""
        ...

    async def stats(self) -> QueueStats:
        """Counters by queue, kept and not counted, and the demand by label set."""
        ...

    async def control(self, queue: str, action: Control) -> list[str]:
        """Pause, resume, clear or list the failed of a queue. Returns job ids cleared or listed. `NotFoundError`."""
        ...


@runtime_checkable
class HasQueue(Protocol):
    """A storage that is also a queue, so that a job and its entry are one transaction."""

    def queue(self) -> QueueBackend:
        """The queue in the same database; entered after the storage."""
        ...


# ------------------------------------------------------------------------------------------------- containers


class ContainerBackend(Resource, Protocol):
    """Where jobs run. Containers outlive the hub: closing the backend stops none of them."""

    async def start(self, spec: ContainerSpec) -> Container:
        """Start, or adopt the one that has this name already. Raises `ContainerStartError`: then no user code ran."""
        ...

    def logs(self, container_id: str) -> AsyncIterator[bytes]:
        """All output from the beginning, as it comes; ends when the container has exited and all was read."""
        ...

    async def wait(self, container_id: str) -> ExitStatus:
        """Wait for the exit; returns at once when it is over. Raises `NotFoundError` for an unknown id."""
        ...

    async def stop(self, container_id: str, grace: timedelta) -> None:
        """TERM, then after `grace` KILL, to the whole tree; returns when all of it is gone. Unknown or exited: nothing."""
        ...

    async def remove(self, container_id: str) -> None:
        """Kill what is left and delete all traces. Unknown: nothing."""
        ...

    async def find(self, labels: Mapping[str, str]) -> list[Container]:
        """All containers, running or exited, that carry these labels."""
        ...


@runtime_checkable
class ResumableLogs(Protocol):
    """Logs from a cursor on. Without it the hub reads from the beginning and skips what it has stored."""

    def logs_after(self, container_id: str, cursor: str) -> AsyncIterator[LogFrame]:
        """Output behind a cursor (empty: from the beginning), each piece with the cursor behind it."""
        ...


@runtime_checkable
class Stats(Protocol):
    """What a container uses."""

    async def usage(self, container_id: str) -> Usage | None:
        """Usage so far, or `None` for an unknown or ended one."""
        ...


@runtime_checkable
class Warm(Protocol):
    """Containers that are started before a job comes and wait, blocked, for a release."""

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Start it up to the point where the command would begin. `spec.command` is not run."""
        ...

    async def release(self, container_id: str, spec: ContainerSpec) -> Container:
        """Let it go on with the command, env, labels and workspace of `spec`; once. `ContainerStartError` when it is gone."""
        ...


# ---------------------------------------------------------------------------------------------------- scanner


class SecretRules(Protocol):
    """Patterns of secrets that a plugin adds."""

    def patterns(self) -> Mapping[str, str]:
        """Rule name to regular expression."""
        ...


class ImageScanner(Protocol):
    """Scans an image for known vulnerabilities."""

    async def scan(self, image: str) -> Mapping[str, Any]:
        """Findings by severity. Raises `NotFoundError` for an unknown image."""
        ...
