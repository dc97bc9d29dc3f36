"""Values that the suites put in: filled to the last field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from runnerhub.model.config import BackendOptions
from runnerhub.model.job import Cancellation, Job, JobRequest, JobStatus, Priority, Reason, Resources
from runnerhub.model.queue import QueueEntry
from runnerhub.model.runner import Capabilities, ResourceInfo, Runner, RunnerKind, RunnerStatus
from runnerhub.testing.clock import FakeClock

NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


def options_for(clock: FakeClock, data_dir: Path) -> BackendOptions:
    """Options whose time is the fake clock's and whose jobs age after a minute."""
    return BackendOptions(data_dir=data_dir, ageing=timedelta(minutes=1), now=clock.now, monotonic=clock.monotonic)


def request(name: str = "build", *, repository: str = "octo/app", github_job_id: int | None = None) -> JobRequest:
    """A request with everything set."""
    return JobRequest(
        repository=repository,
        job_name=name,
        labels=("self-hosted", "Linux", "GPU"),
        command=("sh", "-c", "echo 'ünïcode ☃' \\ \"quoted\""),
        image="ghcr.io/octo/image:1",
        env={"TOKEN": "s3cret", "EMPTY": "", "LINES": "one\ntwo"},
        timeout=timedelta(minutes=5, microseconds=7),
        priority=Priority.HIGH,
        metadata={"nested": {"list": [1, 2.5, None, True, "☃"]}},
        workflow_name="CI",
        resources=Resources(cpus=1.5, memory_mb=512, pids=99),
        delay=timedelta(seconds=3),
        github_job_id=github_job_id,
        workspace=Path("/tmp/work space.tar"),  # noqa: S108  (only a name)
    )


def job(number: int = 1, **changes: object) -> Job:
    """A new job."""
    at = NOW + timedelta(seconds=number)
    given: dict[str, object] = {
        "id": f"job_{number:04d}",
        "request": request(f"build-{number}"),
        "created_at": at,
        "updated_at": at,
        "delegation_id": f"del_{number}",
        **changes,
    }
    return Job(**given)  # type: ignore[arg-type]


def full_job() -> Job:
    """A job with every field set."""
    return job(
        7,
        status=JobStatus.IN_PROGRESS,
        reason=Reason.RUNNING,
        message="☃ runs",
        attempt=2,
        interruptions=1,
        runner_id="runner_1",
        runner_name="default-1",
        pool="default",
        container_id="container_1",
        exit_code=3,
        cancellation=Cancellation(by="ann", at=NOW, why="because"),
        not_before=NOW,
        assigned_at=NOW,
        started_at=NOW,
        completed_at=NOW,
        retry_of="job_0000",
    )


def runner(number: int = 1) -> Runner:
    """A runner with every field set."""
    return Runner(
        id=f"runner_{number}",
        name=f"runner-{number}",
        labels=("self-hosted", "Linux"),
        kind=RunnerKind.REGISTERED,
        status=RunnerStatus.BUSY,
        created_at=NOW + timedelta(seconds=number),
        pool="default",
        hub="hub",
        container_id="container_1",
        jobs=("job_0001", "job_0002"),
        last_seen=NOW,
        os="macos",
        architecture="arm64",
        capabilities=Capabilities(docker=True, kubernetes=True, max_concurrent_jobs=4),
        resource_info=ResourceInfo(cpu_cores=2.5, memory_gb=8.0, disk_gb=None),
        draining=True,
    )


def entry(name: str, clock: FakeClock, **changes: object) -> QueueEntry:
    """A queue entry of its own repository without labels."""
    given: dict[str, object] = {
        "job_id": name,
        "repository": "octo/app",
        "labels": frozenset(),
        "priority": Priority.NORMAL,
        "enqueued_at": clock.now(),
        **changes,
    }
    return QueueEntry(**given)  # type: ignore[arg-type]
