"""Jobs: what somebody asks for, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from attrs import field, frozen

from runnerhub.model import check
from runnerhub.model.errors import ValidationError
from runnerhub.model.labels import LabelSet, checked, label_set

LONGEST_TIMEOUT = timedelta(days=35)
DEFAULT_TIMEOUT = timedelta(hours=6)
COMMAND_BYTES = 128 * 1024


class JobStatus(StrEnum):
    """GitHub's words. A queued job that has a runner is *assigned* (`Job.assigned`)."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


class Conclusion(StrEnum):
    """How a completed job ended; GitHub's words."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    NEUTRAL = "neutral"


class Priority(StrEnum):
    """Three bands; waiting lifts a job, so that low never starves."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def level(self) -> int:
        """0 for high, 1 for normal, 2 for low: how many ageing periods it stands behind."""
        return _LEVELS[self]

    @property
    def queue(self) -> str:
        """The name of its queue: `high-priority`, `normal-priority`, `low-priority`."""
        return f"{self.value}-priority"


_LEVELS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
QUEUES = tuple(priority.queue for priority in Priority)


class Reason(StrEnum):
    """Why a job waits, or why it ended as it did: codes for machines, each explained in the docs."""

    READY = "ready"
    DELAYED = "delayed"
    PAUSED = "paused"
    DRAINING = "draining"
    NO_MATCHING_POOL = "no_matching_pool"
    POOL_FULL = "pool_full"
    POOL_BACKING_OFF = "pool_backing_off"
    NO_ONLINE_RUNNER = "no_online_runner"
    GLOBAL_QUOTA = "global_quota"
    REPOSITORY_QUOTA = "repository_quota"
    STARTING = "starting"
    RUNNING = "running"
    NO_HUB = "no_hub"
    EXITED = "exited"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    START_FAILED = "start_failed"
    INFRASTRUCTURE = "infrastructure"
    REPORTED = "reported"


@frozen
class Resources:
    """What a job may use; `None` leaves it to the backend."""

    cpus: float | None = None
    """Processors, fractions allowed."""
    memory_mb: int | None = None
    """Memory in MiB."""
    pids: int | None = None
    """Processes and threads at once."""

    def __attrs_post_init__(self) -> None:
        if self.cpus is not None:
            check.number(self.cpus, "resources.cpus", least=0.01, most=4096)
        if self.memory_mb is not None:
            check.integer(self.memory_mb, "resources.memory_mb", least=4, most=64 * 1024 * 1024)
        if self.pids is not None:
            check.integer(self.pids, "resources.pids", least=1, most=4 * 1024 * 1024)


def command_words(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return ("/bin/sh", "-e", "-c", check.text(value, "command", longest=COMMAND_BYTES))
    if not isinstance(value, (list, tuple)) or not value:
        raise ValidationError(
            "Missing command", field="command", value=value, expected="a non-empty list of strings, or one for the shell"
        )
    words = tuple(check.text(word, f"command[{i}]", longest=COMMAND_BYTES, shortest=0) for i, word in enumerate(value))
    if not words[0]:
        raise ValidationError("Missing command", field="command[0]", value="", expected="a program to run")
    if sum(map(len, words)) > COMMAND_BYTES:
        raise ValidationError("Too large", field="command", value="…", expected=f"at most {COMMAND_BYTES} characters")
    return words


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(check.text(str(value), "workspace", longest=4096))


@frozen(kw_only=True)
class JobRequest:
    """What somebody asks the hub to run. Checked when built: `ValidationError` names the field.

    `command` is a list of words, or one string for `/bin/sh -e -c`; without one the pool's default is used.
    `workspace` is a tar file on the hub's host, unpacked into the job's private working directory.
    With `github_job_id` the request is idempotent by (repository, github_job_id).
    """

    repository: str
    job_name: str
    labels: tuple[str, ...] = field(default=(), converter=checked)
    command: tuple[str, ...] | None = field(default=None, converter=command_words)
    image: str | None = None
    env: Mapping[str, str] = field(factory=dict, converter=check.environment, repr=False)
    timeout: timedelta | None = None
    priority: Priority = Priority.NORMAL
    metadata: Mapping[str, Any] = field(factory=dict, converter=check.metadata)
    workflow_name: str = ""
    resources: Resources = field(factory=Resources)
    delay: timedelta = timedelta(0)
    github_job_id: int | None = None
    workspace: Path | None = field(default=None, converter=_path)

    def __attrs_post_init__(self) -> None:
        check.repository(self.repository)
        check.text(self.job_name, "job_name", longest=256)
        check.text(self.workflow_name, "workflow_name", longest=256, shortest=0)
        if self.image is not None:
            image = check.text(self.image, "image", longest=512)
            if image.startswith("-") or any(char.isspace() for char in image):
                raise ValidationError("Bad image", field="image", value=image, expected="[registry/]name[:tag][@digest]")
        object.__setattr__(self, "priority", check.choice(self.priority, "priority", Priority))
        if self.timeout is not None:
            object.__setattr__(self, "timeout", check.duration(self.timeout, "timeout", most=LONGEST_TIMEOUT))
        object.__setattr__(self, "delay", check.duration(self.delay, "delay", most=LONGEST_TIMEOUT, zero=True))
        if not isinstance(self.resources, Resources):
            raise ValidationError("Must be Resources", field="resources", value=self.resources, expected="Resources(...)")
        if self.github_job_id is not None:
            check.integer(self.github_job_id, "github_job_id", least=1, most=2**63 - 1)

    @property
    def label_set(self) -> LabelSet:
        """The labels as matching sees them."""
        return label_set(self.labels)


@frozen
class Cancellation:
    """Who asked for an end, when and why."""

    by: str
    at: datetime
    why: str = ""


@frozen(kw_only=True)
class Job:
    """A job as it stands now: only the ledger writes one, each change counts `version` up by one.

    `attempt` is the fence: it counts assignments, and what an older attempt says is refused.
    `interruptions` counts attempts that the infrastructure ended before user code began.
    """

    id: str
    request: JobRequest
    created_at: datetime
    updated_at: datetime
    delegation_id: str = ""
    status: JobStatus = JobStatus.QUEUED
    conclusion: Conclusion | None = None
    reason: Reason | None = None
    message: str = ""
    attempt: int = 0
    interruptions: int = 0
    version: int = 0
    runner_id: str | None = None
    runner_name: str | None = None
    pool: str | None = None
    container_id: str | None = None
    exit_code: int | None = None
    cancellation: Cancellation | None = None
    not_before: datetime | None = None
    assigned_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    retry_of: str | None = None

    @property
    def repository(self) -> str:
        """`owner/repo`."""
        return self.request.repository

    @property
    def job_name(self) -> str:
        """The name that people know it by."""
        return self.request.job_name

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels as asked for."""
        return self.request.labels

    @property
    def priority(self) -> Priority:
        """Its band."""
        return self.request.priority

    @property
    def assigned(self) -> bool:
        """Whether it has a runner but has not begun."""
        return self.status is JobStatus.QUEUED and self.runner_id is not None

    @property
    def active(self) -> bool:
        """Whether a runner has it."""
        return self.assigned or self.status is JobStatus.IN_PROGRESS

    @property
    def completed(self) -> bool:
        """Whether it has ended."""
        return self.status is JobStatus.COMPLETED

    @property
    def succeeded(self) -> bool:
        """Whether it has ended well."""
        return self.conclusion is Conclusion.SUCCESS


@frozen(kw_only=True)
class JobQuery:
    """Which jobs a listing shows; `None` leaves a filter out. `limit` is 1 to 1000."""

    status: JobStatus | None = None
    conclusions: tuple[Conclusion, ...] | None = None
    repository: str | None = None
    runner_id: str | None = None
    active: bool | None = None
    sort: str = "created_at"
    descending: bool = True
    limit: int = 50
    offset: int = 0

    def __attrs_post_init__(self) -> None:
        check.integer(self.limit, "limit", least=1, most=1000)
        check.integer(self.offset, "offset", most=2**31)
        if self.sort not in SORTS:
            raise ValidationError("Unknown sort", field="sort", value=self.sort, expected=f"one of {', '.join(SORTS)}")


SORTS = ("created_at", "updated_at", "status")


@frozen
class JobPage:
    """A page of a listing, and how many there are in all."""

    jobs: tuple[Job, ...]
    total: int


@frozen(kw_only=True)
class Explanation:
    """Why a job stands where it stands."""

    job_id: str
    reason: Reason
    message: str
    closest_pool: str | None = None
    missing_labels: tuple[str, ...] = ()
    since: datetime | None = None
