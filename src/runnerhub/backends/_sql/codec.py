"""Values as rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runnerhub.model.event import Event
from runnerhub.model.job import Cancellation, Conclusion, Job, JobRequest, JobStatus, Priority, Reason, Resources
from runnerhub.model.runner import Capabilities, ResourceInfo, Runner, RunnerKind, RunnerStatus

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
JOB_COLUMNS = "request, state"


def dumps(value: object) -> str:
    """Compact JSON."""
    return _encode(value)


def stamp(at: datetime | None) -> float | None:
    """A time as a number; microseconds survive."""
    return None if at is None else at.timestamp()


def moment(at: float | None) -> datetime | None:
    """A number as a time."""
    return None if at is None else datetime.fromtimestamp(at, UTC)


def request_text(request: JobRequest) -> str:
    """A request, which never changes."""
    resources = request.resources
    return _encode(
        [
            request.repository,
            request.job_name,
            request.labels,
            request.command,
            request.image,
            request.env,
            None if request.timeout is None else request.timeout.total_seconds(),
            request.priority,
            request.metadata,
            request.workflow_name,
            [resources.cpus, resources.memory_mb, resources.pids],
            request.delay.total_seconds(),
            request.github_job_id,
            None if request.workspace is None else str(request.workspace),
        ]
    )


def state_text(job: Job) -> str:
    """What changes of a job."""
    asked = job.cancellation
    return _encode(
        [
            job.id,
            stamp(job.created_at),
            stamp(job.updated_at),
            job.delegation_id,
            job.status,
            job.conclusion,
            job.reason,
            job.message,
            job.attempt,
            job.interruptions,
            job.version,
            job.runner_id,
            job.runner_name,
            job.pool,
            job.container_id,
            job.exit_code,
            None if asked is None else [asked.by, stamp(asked.at), asked.why],
            stamp(job.not_before),
            stamp(job.assigned_at),
            stamp(job.started_at),
            stamp(job.completed_at),
            job.retry_of,
        ]
    )


def job_of(request: str, state: str) -> Job:
    """The job of a row."""
    s = json.loads(state)
    return Job(
        id=s[0],
        request=_request(json.loads(request)),
        created_at=_time(s[1]),
        updated_at=_time(s[2]),
        delegation_id=s[3],
        status=JobStatus(s[4]),
        conclusion=None if s[5] is None else Conclusion(s[5]),
        reason=None if s[6] is None else Reason(s[6]),
        message=s[7],
        attempt=s[8],
        interruptions=s[9],
        version=s[10],
        runner_id=s[11],
        runner_name=s[12],
        pool=s[13],
        container_id=s[14],
        exit_code=s[15],
        cancellation=None if s[16] is None else Cancellation(s[16][0], _time(s[16][1]), s[16][2]),
        not_before=moment(s[17]),
        assigned_at=moment(s[18]),
        started_at=moment(s[19]),
        completed_at=moment(s[20]),
        retry_of=s[21],
    )


def _request(r: list[Any]) -> JobRequest:
    return JobRequest(
        repository=r[0],
        job_name=r[1],
        labels=tuple(r[2]),
        command=None if r[3] is None else tuple(r[3]),
        image=r[4],
        env=r[5],
        timeout=None if r[6] is None else timedelta(seconds=r[6]),
        priority=Priority(r[7]),
        metadata=r[8],
        workflow_name=r[9],
        resources=Resources(*r[10]),
        delay=timedelta(seconds=r[11]),
        github_job_id=r[12],
        workspace=None if r[13] is None else Path(r[13]),
    )


def runner_text(runner: Runner) -> str:
    """A runner."""
    can, has = runner.capabilities, runner.resource_info
    return _encode(
        {
            "id": runner.id,
            "name": runner.name,
            "labels": runner.labels,
            "kind": runner.kind,
            "status": runner.status,
            "created_at": stamp(runner.created_at),
            "pool": runner.pool,
            "hub": runner.hub,
            "container_id": runner.container_id,
            "jobs": runner.jobs,
            "last_seen": stamp(runner.last_seen),
            "os": runner.os,
            "architecture": runner.architecture,
            "capabilities": [can.docker, can.kubernetes, can.max_concurrent_jobs],
            "resource_info": [has.cpu_cores, has.memory_gb, has.disk_gb],
            "draining": runner.draining,
        }
    )


def runner_of(body: str) -> Runner:
    """The runner of a row."""
    r = json.loads(body)
    r.update(
        labels=tuple(r["labels"]),
        kind=RunnerKind(r["kind"]),
        status=RunnerStatus(r["status"]),
        created_at=_time(r["created_at"]),
        jobs=tuple(r["jobs"]),
        last_seen=moment(r["last_seen"]),
        capabilities=Capabilities(*r["capabilities"]),
        resource_info=ResourceInfo(*r["resource_info"]),
    )
    return Runner(**r)


def event_of(row: tuple[int, float, str, str | None, str | None, str | None, str]) -> Event:
    """The event of a row."""
    sequence, at, kind, job_id, runner_id, repository, data = row
    return Event.of(
        kind,
        sequence=sequence,
        at=_time(at),
        job_id=job_id,
        runner_id=runner_id,
        repository=repository,
        data=json.loads(data),
    )


def mapping_of(text: str) -> Mapping[str, Any]:
    """A JSON object."""
    value: Mapping[str, Any] = json.loads(text)
    return value


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
