"""Commands that look at a storage while others work on it: `jobs`, `logs`, `explain`, `cancel`, `retry`, `runners`."""

from __future__ import annotations

import getpass
import json
import os
import sys

import anyio
import click

from runnerhub.cli.common import Where, find_job, shown, where_options
from runnerhub.cli.render import job_row, job_table, plain_event, table
from runnerhub.model.job import JobQuery, JobStatus

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


def user() -> str:
    """Who asks, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@click.command()
@click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="Only jobs of this status.")
@click.option("--repository", metavar="OWNER/REPO", help="Only jobs of this repository.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@_json
@where_options
def jobs(where: Where, status: str | None, repository: str | None, limit: int, *, as_json: bool) -> None:
    """List jobs, newest first."""

    async def look() -> None:
        async with where.look() as hub:
            query = JobQuery(status=JobStatus(status) if status else None, repository=repository, limit=limit)
            page = await hub.jobs(query)
            if as_json:
                for job in page.jobs:
                    click.echo(json.dumps(job_row(job)))
            else:
                job_table(page.jobs)
                if page.total > len(page.jobs):
                    click.echo(f"{len(page.jobs)} of {page.total} jobs; --limit shows more", err=True)

    anyio.run(look)


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has completed.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="LINE", help="Begin behind this line.")
@click.option("-t", "--timestamps", is_flag=True, help="The time of each line before it.")
@_json
@where_options
def logs(where: Where, job_id: str, after: int, *, follow: bool, timestamps: bool, as_json: bool) -> None:
    """Show a job's log."""

    async def look() -> None:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        async with where.look() as hub:
            job = await find_job(hub, job_id)
            async for line in hub.logs(job.id, follow=follow, after=after):
                if as_json:
                    click.echo(json.dumps(plain_event(line)))
                    continue
                time = f"{line.at.isoformat(timespec='milliseconds')} " if timestamps else ""
                click.echo(f"{time}{shown(line.text, colour=colour)}", color=colour)

    anyio.run(look)


@click.command()
@click.argument("job_id", metavar="JOB")
@_json
@where_options
def explain(where: Where, job_id: str, *, as_json: bool) -> None:
    """Say why a job stands where it stands."""

    async def look() -> None:
        async with where.look() as hub:
            told = await hub.scheduler.explain((await find_job(hub, job_id)).id)
            click.echo(json.dumps(plain_event(told)) if as_json else f"{told.reason.value}: {told.message}")

    anyio.run(look)


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--why", default="", help="A reason, for the record.")
@_json
@where_options
def cancel(where: Where, job_id: str, why: str, *, as_json: bool) -> None:
    """Ask for a job's end."""

    async def look() -> None:
        async with where.look() as hub:
            job = await hub.cancel((await find_job(hub, job_id)).id, by=user(), why=why)
            text = f"{job.id} is cancelled" if job.completed else f"{job.id} is asked to end"
            click.echo(json.dumps(job_row(job)) if as_json else text)

    anyio.run(look)


@click.command()
@click.argument("job_id", metavar="JOB")
@_json
@where_options
def retry(where: Where, job_id: str, *, as_json: bool) -> None:
    """Delegate a completed job once more; a hub on the same storage runs it."""

    async def look() -> None:
        async with where.look() as hub:
            job = await hub.retry((await find_job(hub, job_id)).id, by=user())
            click.echo(json.dumps(job_row(job)) if as_json else job.id)

    anyio.run(look)


@click.command()
@_json
@where_options
def runners(where: Where, *, as_json: bool) -> None:
    """List runners."""

    async def look() -> None:
        async with where.look() as hub:
            found = await hub.pool.runners()
            if as_json:
                for runner in found:
                    click.echo(json.dumps(plain_event(runner)))
            else:
                rows = [(r.id, r.name, r.kind.value, r.status.value, ",".join(r.labels), ",".join(r.jobs)) for r in found]
                table(("id", "name", "kind", "status", "labels", "jobs"), rows)

    anyio.run(look)
