"""Queue entries, leases and counters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from attrs import field, frozen

from runnerhub.model.job import Priority
from runnerhub.model.labels import LabelSet


@frozen(kw_only=True)
class QueueEntry:
    """A job that waits. The entry carries all that ordering needs; the job itself is in the storage."""

    job_id: str
    repository: str
    labels: LabelSet
    priority: Priority
    enqueued_at: datetime
    not_before: datetime | None = None
    weight: float = 1.0


@frozen(kw_only=True)
class Lease:
    """A job that an owner works on. `token` is the fence: it grows with every lease of the job."""

    job_id: str
    repository: str
    labels: LabelSet
    priority: Priority
    owner: str
    token: int
    taken_over: bool = False


@frozen(kw_only=True)
class Wanted:
    """What a runner could take: entries whose labels are within `labels`, of repositories that may start now.

    `exclude` are repositories at their quota; `only` (when not empty) are the ones allowed, as `owner/repo` or `owner/*`.
    """

    labels: LabelSet
    exclude: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()

    def takes(self, repository: str) -> bool:
        """Whether a job of the repository may be taken."""
        if repository in self.exclude:
            return False
        return not self.only or repository in self.only or f"{repository.partition('/')[0]}/*" in self.only


class Outcome(StrEnum):
    """What an acknowledged job counts as."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Control(StrEnum):
    """What an operator does to a queue."""

    PAUSE = "pause"
    RESUME = "resume"
    CLEAR_FAILED = "clear_failed"
    LIST_FAILED = "list_failed"


@frozen(kw_only=True)
class QueueCounts:
    """Counters of one queue. `waiting`, `active`, `delayed` and `failed` are states, `completed` only grows."""

    waiting: int = 0
    active: int = 0
    delayed: int = 0
    completed: int = 0
    failed: int = 0
    paused: bool = False


@frozen(kw_only=True)
class QueueStats:
    """All queues at one moment. `demand` counts what may start now by label set, paused queues left out."""

    queues: Mapping[str, QueueCounts]
    demand: Mapping[LabelSet, int] = field(factory=dict)
    next_due: datetime | None = None
