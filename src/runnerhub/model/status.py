"""What a hub says of itself at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from attrs import field, frozen

from runnerhub.model.queue import QueueCounts


class Mode(StrEnum):
    """What the scheduler does."""

    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"


@frozen(kw_only=True)
class SchedulerState:
    """The scheduler's mode, and who set it, when and why."""

    mode: Mode = Mode.RUNNING
    by: str = ""
    at: datetime | None = None
    why: str = ""


@frozen(kw_only=True)
class PoolStatus:
    """A pool: how many runners it may have, has, and keeps ready. `failures` counts failed starts in a row."""

    name: str
    labels: tuple[str, ...]
    max_runners: int
    starting: int = 0
    busy: int = 0
    idle: int = 0
    failures: int = 0
    backing_off_for: float = 0.0

    @property
    def free(self) -> int:
        """How many more jobs it could take."""
        return max(0, self.max_runners - self.starting - self.busy)


@frozen(kw_only=True)
class HubStatus:
    """A hub at one moment. `jobs` counts by status, and completed ones by conclusion too."""

    name: str
    started_at: datetime
    scheduler: SchedulerState
    jobs: Mapping[str, int]
    queues: Mapping[str, QueueCounts]
    pools: tuple[PoolStatus, ...] = field(default=())
    runners: int = 0
