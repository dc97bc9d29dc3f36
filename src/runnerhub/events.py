"""The events that subscribers get, all in the past tense."""

from __future__ import annotations

from runnerhub.model.event import (
    Event,
    JobAssigned,
    JobCancelRequested,
    JobCompleted,
    JobQueued,
    JobRequeued,
    JobStarted,
    QueuePaused,
    QueueResumed,
    RunnerDraining,
    RunnerOffline,
    RunnerOnline,
    RunnerRegistered,
    RunnerRemoved,
    RunnerStarted,
    RunnerStartFailed,
    SchedulerDraining,
    SchedulerPaused,
    SchedulerResumed,
    SystemAlert,
)

__all__ = [
    "Event",
    "JobAssigned",
    "JobCancelRequested",
    "JobCompleted",
    "JobQueued",
    "JobRequeued",
    "JobStarted",
    "QueuePaused",
    "QueueResumed",
    "RunnerDraining",
    "RunnerOffline",
    "RunnerOnline",
    "RunnerRegistered",
    "RunnerRemoved",
    "RunnerStartFailed",
    "RunnerStarted",
    "SchedulerDraining",
    "SchedulerPaused",
    "SchedulerResumed",
    "SystemAlert",
]
