"""How jobs and tables look: rich on a terminal, plain columns for everybody else, JSON for machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import click
from attrs import asdict, has

from runnerhub.model.job import Job

COLOURS = {"success": "green", "failure": "red", "timed_out": "red", "cancelled": "yellow", "skipped": "bright_black"}


def plain_event(value: Any) -> Any:
    """A value of the model as JSON shows it."""
    if has(type(value)):
        return {name: plain_event(one) for name, one in asdict(value, recurse=False).items()}
    if isinstance(value, Mapping):
        return {str(name): plain_event(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_event(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, Path) else value


def job_row(job: Job) -> dict[str, Any]:
    """A job for machines. The values of its environment are left out: they may be secrets."""
    plain: dict[str, Any] = plain_event(job)
    plain["request"]["env"] = sorted(job.request.env)
    return plain


def state(job: Job) -> str:
    """One word: how it ended, or where it stands."""
    if job.conclusion is not None:
        return job.conclusion.value
    return "assigned" if job.assigned else job.status.value


def duration(job: Job) -> str:
    """How long it ran."""
    if job.started_at is None or job.completed_at is None:
        return "-"
    return seconds((job.completed_at - job.started_at).total_seconds())


def seconds(value: float) -> str:
    """A duration as people write it."""
    if value < 60:
        return f"{value:.1f}s"
    minutes, rest = divmod(int(value), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def job_table(jobs: Iterable[Job]) -> None:
    """Jobs, one per line."""
    rows = [(job.id, job.repository, job.job_name, state(job), duration(job), job.message) for job in jobs]
    table(("id", "repository", "job", "state", "time", "message"), rows, coloured=3)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, coloured: int | None = None, err: bool = False) -> None:
    """A table: with lines and colours on a terminal, else columns two blanks apart that nothing cuts."""
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        made = Table(*head, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            cells = [Text(cell) for cell in row]
            if coloured is not None:
                cells[coloured].stylize(COLOURS.get(row[coloured], "cyan"))
            made.add_row(*cells)
        Console(stderr=err, no_color="NO_COLOR" in os.environ).print(made)
        return
    clean = [[cell.replace("\n", " ") for cell in row] for row in [list(head), *map(list, rows)]]
    widths = [max(len(row[index]) for row in clean) for index in range(len(head))]
    for row in clean:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), err=err)
