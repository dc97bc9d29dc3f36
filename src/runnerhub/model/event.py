"""Events: what happened, in the past tense, in one order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from attrs import evolve, field, frozen


@frozen(kw_only=True)
class Event:
    """Something that happened. `sequence` is its place in the storage's one order (0 until it is stored)."""

    kinds: ClassVar[dict[str, type[Event]]] = {}

    at: datetime
    job_id: str | None = None
    runner_id: str | None = None
    repository: str | None = None
    data: Mapping[str, Any] = field(factory=dict)
    sequence: int = 0

    def __init_subclass__(cls) -> None:
        Event.kinds[cls.__name__] = cls

    @property
    def kind(self) -> str:
        """The name of its class."""
        return type(self).__name__

    def numbered(self, sequence: int) -> Event:
        """The same event in its place."""
        return evolve(self, sequence=sequence)

    @staticmethod
    def of(kind: str, **fields: Any) -> Event:
        """An event by the name of its class; an unknown name (a newer hub's) gives a plain `Event`."""
        return Event.kinds.get(kind, Event)(**fields)


class JobQueued(Event):
    """A job was accepted and waits."""


class JobAssigned(Event):
    """A job has a runner, which is about to start."""


class JobStarted(Event):
    """The job's own work began."""


class JobRequeued(Event):
    """The infrastructure failed before the job's work began: it waits again."""


class JobCancelRequested(Event):
    """Somebody asked for a job's end."""


class JobCompleted(Event):
    """A job ended; `data` has the conclusion, the reason and the exit code."""


class RunnerRegistered(Event):
    """A runner came from elsewhere."""


class RunnerStarted(Event):
    """The hub started a runner."""


class RunnerRemoved(Event):
    """A runner is gone."""


class RunnerOnline(Event):
    """A registered runner is heard again."""


class RunnerOffline(Event):
    """A registered runner has not been heard for too long."""


class RunnerDraining(Event):
    """A runner finishes what it has and takes nothing more."""


class RunnerStartFailed(Event):
    """A runner did not start; its slot is free again and the pool backs off."""


class SchedulerPaused(Event):
    """Nothing new starts until somebody resumes; `data` says who, when and why."""


class SchedulerResumed(Event):
    """Work goes on."""


class SchedulerDraining(Event):
    """What runs is finished, nothing new starts."""


class QueuePaused(Event):
    """One queue was paused."""


class QueueResumed(Event):
    """One queue was resumed."""


class SystemAlert(Event):
    """Something that an operator should know; `data` has severity, message and source."""
