"""Containers: what a backend is asked to start, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from attrs import field, frozen

from runnerhub.model.job import Resources

HUB_LABEL = "runnerhub.hub"
JOB_LABEL = "runnerhub.job"
ATTEMPT_LABEL = "runnerhub.attempt"
RUNNER_LABEL = "runnerhub.runner"


class ContainerState(StrEnum):
    """What is known of a container."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


@frozen(kw_only=True)
class ContainerSpec:
    """What to start. `name` is deterministic: a second start by the same name adopts the first.

    `env` is all that the command sees besides what the backend needs; `workspace` is a tar file to unpack
    into the private working directory before the command begins.
    """

    name: str
    command: tuple[str, ...]
    image: str | None = None
    env: Mapping[str, str] = field(factory=dict, repr=False)
    labels: Mapping[str, str] = field(factory=dict)
    resources: Resources = field(factory=Resources)
    workspace: Path | None = None


@frozen(kw_only=True)
class ExitStatus:
    """How a container ended: `code`, and what is known of why.

    `code` is `None` when nobody knows (`lost` says why not); a death by signal is 128 + the signal, as in a shell.
    `lost` is a fault of the infrastructure, never the job's: the engine was restarted, the supervisor killed.
    """

    code: int | None
    signal: int | None = None
    oom: bool = False
    lost: str = ""
    finished_at: datetime | None = None


@frozen(kw_only=True)
class Container:
    """A container as the engine sees it now; `id` is the engine's own."""

    id: str
    name: str
    labels: Mapping[str, str] = field(factory=dict)
    state: ContainerState = ContainerState.RUNNING
    exit: ExitStatus | None = None


@frozen
class LogFrame:
    """A piece of a container's output and the cursor that stands behind it (opaque to all but the backend)."""

    data: bytes
    cursor: str


@frozen
class Usage:
    """What a container has used so far; `None` where the engine does not say."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None


DEFAULT_GRACE = timedelta(seconds=15)
