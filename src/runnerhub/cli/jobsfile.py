"""Jobs files: several jobs in TOML, with what each needs to have succeeded before it starts."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from attrs import frozen

from runnerhub.model import check
from runnerhub.model.errors import ConfigurationError, ValidationError
from runnerhub.model.job import JobRequest, Priority, Resources

KEYS = ("name", "command", "labels", "priority", "env", "timeout_minutes", "needs", "image", "repository", "resources")
_RESOURCES = ("cpus", "memory_mb", "pids")
_MOST_MINUTES = 35 * 24 * 60


@frozen
class Step:
    """One job of a file: what to delegate, and the names of the jobs that must have succeeded before."""

    name: str
    request: JobRequest
    needs: tuple[str, ...] = ()


def load(path: Path, *, repository: str, workspace: Path | None) -> list[Step]:
    """The jobs of a file, in its order. Raises `ConfigurationError` that names the file, the job and the key."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"Cannot be read ({error.strerror})", field="jobs file", value=str(path), expected="a readable TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Not TOML ({error})", field="jobs file", value=str(path), expected="TOML") from error
    _known(tables, ("jobs",), str(path))
    jobs = tables.get("jobs")
    if not isinstance(jobs, list) or not jobs or not all(isinstance(job, dict) for job in jobs):
        raise ConfigurationError("No jobs", field=f"{path}: jobs", value=jobs, expected="at least one [[jobs]] table")
    steps = [_step(job, f"{path}: jobs[{index}]", repository, workspace) for index, job in enumerate(jobs)]
    _check_needs(steps, str(path))
    return steps


def _step(job: Mapping[str, Any], at: str, repository: str, workspace: Path | None) -> Step:
    _known(job, KEYS, at)
    try:
        name = check.text(job.get("name"), "name", longest=256)
        command, needs = _command(job), _needs(job)
        minutes = job.get("timeout_minutes")
        request = JobRequest(
            repository=job.get("repository", repository),
            job_name=name,
            labels=job.get("labels", ()),
            command=command,
            image=job.get("image"),
            env=job.get("env", {}),
            timeout=None
            if minutes is None
            else timedelta(minutes=check.number(minutes, "timeout_minutes", least=0.001, most=_MOST_MINUTES)),
            priority=job.get("priority", Priority.NORMAL),
            resources=_resources(job.get("resources", {})),
            workspace=workspace,
        )
        return Step(name, request, needs)
    except ConfigurationError:
        raise
    except ValidationError as error:
        raise ConfigurationError(
            error.message, field=f"{at}.{error.field}", value=error.value, expected=error.expected
        ) from error


def _command(job: Mapping[str, Any]) -> object:
    if "command" not in job:
        raise ValidationError("Missing command", field="command", expected="a list of words, or a string for the shell")
    return job["command"]


def _needs(job: Mapping[str, Any]) -> tuple[str, ...]:
    needs = job.get("needs", [])
    if not isinstance(needs, list):
        raise ValidationError("Must be a list", field="needs", value=needs, expected="names of jobs")
    return tuple(check.text(need, f"needs[{i}]", longest=256) for i, need in enumerate(needs))


def _resources(table: object) -> Resources:
    if not isinstance(table, Mapping):
        raise ValidationError("Must be a table", field="resources", value=table, expected=f"{', '.join(_RESOURCES)}")
    _known(table, _RESOURCES, "resources")
    return Resources(**table)


def _known(table: Mapping[str, Any], keys: Sequence[str], at: str) -> None:
    for key in table:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = repr(close[0]) if close else f"one of {', '.join(keys)}"
            raise ConfigurationError("Unknown key", field=f"{at}.{key}", value=key, expected=hint)


def _check_needs(steps: Sequence[Step], path: str) -> None:
    names = [step.name for step in steps]
    for step in steps:
        if names.count(step.name) > 1:
            raise ConfigurationError("Two jobs of one name", field=f"{path}: name", value=step.name, expected="different names")
        for need in step.needs:
            if need not in names:
                close = difflib.get_close_matches(need, names, n=1)
                hint = repr(close[0]) if close else f"one of {', '.join(names)}"
                raise ConfigurationError("Unknown job", field=f"{path}: {step.name}.needs", value=need, expected=hint)
    left, done = list(steps), set[str]()
    while left:
        ready = [step for step in left if done.issuperset(step.needs)]
        if not ready:
            circle = ", ".join(step.name for step in left)
            raise ConfigurationError("Jobs need each other", field=f"{path}: needs", value=circle, expected="no circle")
        done.update(step.name for step in ready)
        left = [step for step in left if step not in ready]
