"""Runners: the hub's own ephemeral ones and those that registered from elsewhere."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from attrs import field, frozen

from runnerhub.model.labels import LabelSet, checked, label_set


class RunnerKind(StrEnum):
    """Where a runner comes from."""

    EPHEMERAL = "ephemeral"
    """Started by the hub in a container, one job, then removed."""
    REGISTERED = "registered"
    """Registered from elsewhere; lives by its heartbeats; its own agent runs the job."""


class RunnerStatus(StrEnum):
    """Where a runner stands in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    OFFLINE = "offline"


@frozen
class Capabilities:
    """What a runner says it can do."""

    docker: bool = False
    kubernetes: bool = False
    max_concurrent_jobs: int = 1


@frozen
class ResourceInfo:
    """What a runner's machine has; `None` where unknown."""

    cpu_cores: float | None = None
    memory_gb: float | None = None
    disk_gb: float | None = None


@frozen(kw_only=True)
class Runner:
    """A runner as it stands now. `last_seen` is the last heartbeat of a registered one."""

    id: str
    name: str
    labels: tuple[str, ...] = field(converter=checked)
    kind: RunnerKind
    status: RunnerStatus
    created_at: datetime
    pool: str | None = None
    hub: str | None = None
    container_id: str | None = None
    jobs: tuple[str, ...] = ()
    last_seen: datetime | None = None
    os: str = "linux"
    architecture: str = "x64"
    capabilities: Capabilities = field(factory=Capabilities)
    resource_info: ResourceInfo = field(factory=ResourceInfo)
    draining: bool = False

    @property
    def label_set(self) -> LabelSet:
        """The labels as matching sees them."""
        return label_set(self.labels)

    @property
    def online(self) -> bool:
        """Whether it can be counted on."""
        return self.status is not RunnerStatus.OFFLINE

    @property
    def busy(self) -> bool:
        """Whether it has a job."""
        return bool(self.jobs)

    @property
    def free_slots(self) -> int:
        """How many more jobs it takes now."""
        if not self.online or self.draining or self.status is RunnerStatus.STOPPING:
            return 0
        return max(0, self.capabilities.max_concurrent_jobs - len(self.jobs))
