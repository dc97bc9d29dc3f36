"""`runnerhub run`: delegate one command, or the jobs of a file, to an embedded hub, and stay until all have ended."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import click
from attrs import evolve, frozen

from runnerhub.cli.common import Where, where_options
from runnerhub.cli.jobsfile import Step, load
from runnerhub.cli.show import user
from runnerhub.cli.view import Progress, View, view_for
from runnerhub.cli.workspace import local_repository, snapshot
from runnerhub.engine.hub import Hub, data_directory
from runnerhub.model.config import HubConfig
from runnerhub.model.container import JOB_LABEL
from runnerhub.model.errors import ConflictError, UnavailableError, ValidationError
from runnerhub.model.job import JobRequest, Priority, Reason

INTERRUPTED, BROKEN_PIPE = 130, 141


@frozen(kw_only=True)
class Options:
    """What the command line says of the run."""

    keep_going: bool
    as_json: bool
    copy: bool


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="JOBS.toml | -- COMMAND...")
@click.option("--labels", metavar="A,B", default="", help="Labels that the runner must carry.")
@click.option("--name", help="The job's name; by default its program.")
@click.option("--priority", type=click.Choice([one.value for one in Priority]), default="normal", show_default=True)
@click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="A variable for the job; NAME alone passes on ours.")
@click.option("--timeout", type=float, metavar="MINUTES", help="End the job after so many minutes.")
@click.option("--image", help="The image to run in, where the container backend has images.")
@click.option("--repository", metavar="OWNER/REPO", help="Whose job it is; by default local/ and the directory's name.")
@click.option("--containers", metavar="NAME", help="The container backend, by name.")
@click.option("--max-runners", type=click.IntRange(1), metavar="N", help="Jobs at once.")
@click.option("--keep-going", is_flag=True, help="After a failure, go on with whatever does not need the failed job.")
@click.option("--no-workspace", is_flag=True, help="Start in an empty directory, not in a copy of this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@where_options
def run(
    where: Where,
    what: tuple[str, ...],
    labels: str,
    name: str | None,
    priority: str,
    env: tuple[str, ...],
    timeout: float | None,
    image: str | None,
    repository: str | None,
    containers: str | None,
    max_runners: int | None,
    *,
    keep_going: bool,
    no_workspace: bool,
    as_json: bool,
) -> None:
    """Run a command, or the jobs of a file, on runners of our own.

    Jobs start in a copy of the current directory: of what git tracks or would track, or of everything where there is no git.
    Exit status: 0 all succeeded, 1 a job failed, 2 a mistake in what was asked for, 130 interrupted.
    """
    config = _configured(where.config(), containers, max_runners)
    options = Options(keep_going=keep_going, as_json=as_json, copy=not no_workspace)
    repository = repository or local_repository(Path.cwd())
    if len(what) == 1 and what[0].endswith(".toml"):
        steps = load(Path(what[0]), repository=repository, workspace=None)
        if image is not None:
            steps = [evolve(step, request=evolve(step.request, image=step.request.image or image)) for step in steps]
    else:
        request = JobRequest(
            repository=repository,
            job_name=name or Path(what[0]).name or "command",
            labels=tuple(label.strip() for label in labels.split(",") if label.strip()),
            command=what,
            image=image,
            env=dict(_variable(one) for one in env),
            timeout=None if timeout is None else timedelta(minutes=timeout),
            priority=Priority(priority),
        )
        steps = [Step(request.job_name, request)]
    sys.exit(anyio.run(_run, config, steps, options))


def _configured(config: HubConfig, containers: str | None, max_runners: int | None) -> HubConfig:
    pools = config.pools
    if containers is not None:
        config, pools = evolve(config, containers=containers), tuple(evolve(pool, containers=None) for pool in pools)
    if max_runners is not None:
        pools = tuple(evolve(pool, max_runners=max_runners, min_idle=min(pool.min_idle, max_runners)) for pool in pools)
    return evolve(config, pools=pools)


def _variable(text: str) -> tuple[str, str]:
    name, given, value = text.partition("=")
    if not given:
        if name not in os.environ:
            raise ValidationError("Not in this environment", field="env", value=name, expected="NAME=VALUE")
        value = os.environ[name]
    return name, value


async def _run(config: HubConfig, steps: Sequence[Step], options: Options) -> int:
    progress = [Progress(step) for step in steps]
    view = view_for(progress, as_json=options.as_json)
    async with AsyncExitStack() as stack:
        if options.copy:
            workspace = await stack.enter_async_context(_workspace(data_directory(config)))
            for one in progress:
                one.step = evolve(one.step, request=evolve(one.step.request, workspace=workspace))
        hub = await stack.enter_async_context(Hub(config))
        return await Conductor(hub, view, progress, options).conduct()


@asynccontextmanager
async def _workspace(data_dir: Path) -> AsyncIterator[Path | None]:
    """A snapshot of the current directory, deleted at the end."""
    directory = data_dir / "workspaces"
    target = directory / f"{secrets.token_hex(8)}.tar"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = await anyio.to_thread.run_sync(snapshot, Path.cwd(), target)
    except OSError as error:
        with suppress(OSError):
            target.unlink(missing_ok=True)
        raise UnavailableError(
            f"the current directory cannot be copied for the jobs ({error.strerror}: {error.filename}); "
            "make room, use --data-dir, or --no-workspace"
        ) from error
    if not written:
        click.echo("note: this is no git work tree and too large to copy: jobs start in an empty directory", err=True)
    try:
        yield target if written else None
    finally:
        target.unlink(missing_ok=True)


class Conductor:
    """Starts each step when what it needs has succeeded, shows what happens, and stops everything when asked to."""

    def __init__(self, hub: Hub, view: View, steps: Sequence[Progress], options: Options) -> None:
        self._hub, self._view, self._steps, self._options = hub, view, steps, options
        self._done = {one.step.name: anyio.Event() for one in steps}
        self._by_name = {one.step.name: one for one in steps}
        self._stopping = ""
        self._interrupts = 0
        self._unmatched = False

    async def conduct(self) -> int:
        """Run all steps; the exit status."""
        async with self._view:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, name="signals")
                tasks.start_soon(self._watch_pipe, name="pipe")
                tasks.start_soon(self._view.write, name="output")
                tasks.start_soon(self._events, self._hub.subscribe(), name="events")
                async with anyio.create_task_group() as running:
                    for one in self._steps:
                        running.start_soon(self._carry, one, name=f"step {one.step.name}")
                tasks.cancel_scope.cancel()
            await self._view.summary()
        if self._view.gone.is_set():
            return BROKEN_PIPE
        if self._interrupts:
            return INTERRUPTED
        if self._unmatched:
            return 2
        return 0 if all(one.job is not None and one.job.succeeded for one in self._steps) else 1

    async def _carry(self, one: Progress) -> None:
        try:
            for need in one.step.needs:
                await self._done[need].wait()
            missing = [need for need in one.step.needs if not self._succeeded(need)]
            if missing or self._stopping:
                one.skipped = f"needs {', '.join(missing)}" if missing else self._stopping
                await self._view.changed(one)
                return
            one.job = await self._hub.delegate(one.step.request)
            await self._attend(one, one.job.id)
        finally:
            self._done[one.step.name].set()

    async def _attend(self, one: Progress, job_id: str) -> None:
        told = await self._hub.scheduler.explain(job_id)
        if told.reason is Reason.NO_MATCHING_POOL:
            self._unmatched = True
            await self._cancel(job_id, told.message)
        async for line in self._hub.logs(job_id, follow=True):
            await self._view.line(one, line)
        one.job = await self._hub.wait(job_id)
        if told.reason is Reason.NO_MATCHING_POOL:
            one.job = evolve(one.job, message=told.message)
        await self._view.changed(one)
        if not one.job.succeeded and not self._options.keep_going:
            await self._stop_rest(f"{one.step.name} failed")

    async def _stop_rest(self, why: str) -> None:
        """Start nothing more; what waits for a runner is cancelled, what runs goes on."""
        self._stopping = self._stopping or why
        for one in self._steps:
            if one.job is not None and not one.job.completed and (await self._hub.job(one.job.id)).attempt == 0:
                await self._cancel(one.job.id, why)

    async def _cancel(self, job_id: str, why: str) -> None:
        try:
            await self._hub.cancel(job_id, by=user(), why=why)
        except ConflictError:
            return  # it ended meanwhile

    def _succeeded(self, name: str) -> bool:
        job = self._by_name[name].job
        return job is not None and job.succeeded

    async def _events(self, events: AsyncIterator[object]) -> None:
        ours = {one.step.name: one for one in self._steps}
        async for event in events:
            for one in ours.values():
                if one.job is not None and one.job.id == event.job_id:  # type: ignore[attr-defined]
                    if one.began is None and event.kind == "JobStarted":  # type: ignore[attr-defined]
                        one.began = time.monotonic()
                    await self._view.event(event)  # type: ignore[arg-type]
                    if not one.job.completed:
                        one.job = await self._hub.job(one.job.id)

    async def _listen(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self._interrupts += 1
                await self._interrupt("interrupted")

    async def _watch_pipe(self) -> None:
        await self._view.gone.wait()
        await self._interrupt("nobody reads the output")

    async def _interrupt(self, why: str) -> None:
        """The first time jobs have their grace to end in; after that they are killed."""
        self._stopping = why
        for one in self._steps:
            if one.job is None or one.job.completed:
                continue
            if self._interrupts > 1:
                await self._hub.pool.own.sweep({JOB_LABEL: one.job.id})
            else:
                await self._cancel(one.job.id, why)
