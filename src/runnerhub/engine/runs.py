"""One job on one of the hub's own runners: from its lease to its end, from whatever point an earlier life left it at."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import anyio
import anyio.abc
from attrs import define, evolve, field, frozen

from runnerhub.engine.bus import Bus
from runnerhub.engine.clock import deadline, wait_at_most
from runnerhub.engine.ledger import Ledger
from runnerhub.engine.logs import Recorder
from runnerhub.engine.own import OwnRunners, Pool
from runnerhub.engine.plugins import Plugins
from runnerhub.model.config import HubConfig
from runnerhub.model.container import (
    ATTEMPT_LABEL,
    HUB_LABEL,
    JOB_LABEL,
    RUNNER_LABEL,
    Container,
    ContainerSpec,
    ExitStatus,
)
from runnerhub.model.errors import ContainerStartError, LeaseLostError, NotFoundError, PluginError, UnavailableError
from runnerhub.model.event import Event, JobCancelRequested
from runnerhub.model.job import DEFAULT_TIMEOUT, Job, Reason, Resources
from runnerhub.model.lifecycle import Assigned, Ended, Fact, Interrupted, Started, TimedOut
from runnerhub.model.queue import Lease
from runnerhub.model.runner import Runner, RunnerStatus
from runnerhub.protocols import Clock, ContainerBackend, QueueBackend, StorageBackend, Warm
from runnerhub.scanner.scanner import Scanner

_log = logging.getLogger("runnerhub.runs")
_RETRY_SECONDS = 1.0
_MOST_ERRORS = 3
T = TypeVar("T")


@frozen(kw_only=True)
class Parts:
    """What a run works with."""

    config: HubConfig
    storage: StorageBackend
    queue: QueueBackend
    ledger: Ledger
    bus: Bus
    own: OwnRunners
    plugins: Plugins
    scanner: Scanner
    clock: Clock
    hub: str


@define(eq=False)
class Run:
    """A job that this hub takes care of now. `stop` is set when somebody wants it to end."""

    lease: Lease
    pool: Pool | None
    stop: anyio.Event = field(factory=anyio.Event)
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    ended: bool = False


class Runs:
    """All runs of one hub."""

    def __init__(self, parts: Parts, tasks: anyio.abc.TaskGroup, freed: Callable[[], None]) -> None:
        self._parts, self._tasks, self._freed = parts, tasks, freed
        self.live: dict[str, Run] = {}
        self.empty = anyio.Event()
        parts.bus.listen(self._hear)

    def begin(self, lease: Lease, pool: Pool | None) -> None:
        """Take care of a leased job from now on."""
        run = self.live[lease.job_id] = Run(lease, pool)
        if pool is not None:
            pool.jobs.add(lease.job_id)
        self._tasks.start_soon(self._guard, run, name=f"run of {lease.job_id}")

    async def drained(self) -> None:
        """Wait until nothing runs."""
        while self.live:
            self.empty = anyio.Event()
            await self.empty.wait()

    async def abandon(self) -> None:
        """Let go of all runs; their containers go on, for whoever adopts them."""
        for run in list(self.live.values()):
            run.scope.cancel()
        await self.drained()

    def _hear(self, event: Event) -> None:
        if isinstance(event, JobCancelRequested) and (run := self.live.get(event.job_id or "")):
            run.stop.set()

    async def _guard(self, run: Run) -> None:
        job_id, errors = run.lease.job_id, 0
        try:
            with run.scope:
                while True:
                    try:
                        await Attempt(self._parts, run).carry()
                    except LeaseLostError:
                        _log.warning("job %s: another hub has taken it over", job_id)
                        return
                    except UnavailableError as error:
                        _log.warning("job %s: waiting for what it needs: %s", job_id, error)
                    except Exception:  # noqa: BLE001  (the loop's edge: logged, tried again, given up)
                        errors += 1
                        _log.exception("job %s: error %d of %d", job_id, errors, _MOST_ERRORS)
                        if errors >= _MOST_ERRORS and await self._give_up(run):
                            return
                    else:
                        return
                    await self._parts.clock.sleep(_RETRY_SECONDS)
        finally:
            del self.live[job_id]
            if run.pool is not None:
                run.pool.jobs.discard(job_id)
            if not self.live:
                self.empty.set()
            self._freed()

    async def _give_up(self, run: Run) -> bool:
        """A job that the hub itself cannot carry is a dead letter; `False` when not even that can be written."""
        try:
            await self._parts.own.sweep({JOB_LABEL: run.lease.job_id})
            job = await self._parts.ledger.fresh(run.lease.job_id)
            if not job.active:
                job = await self._parts.ledger.advance(job, Assigned(job.attempt + 1, "", "", "")) or job
            fact = Interrupted(job.attempt, "the hub could not carry it; its log says why", retryable=False)
            await self._parts.ledger.advance(job, fact, lease=run.lease, remove_runner=job.runner_id)
        except Exception:  # noqa: BLE001  (logged, and tried again by the caller)
            _log.exception("job %s: cannot be given up yet", run.lease.job_id)
            return False
        return True


class Attempt:
    """The work on one run. `carry` looks at what is stored and goes on from there, so calling it again is always right."""

    def __init__(self, parts: Parts, run: Run) -> None:
        self._parts, self._run = parts, run
        self._ledger, self._clock, self._config = parts.ledger, parts.clock, parts.config
        self._pool = run.pool
        self._timed_out = False
        self._fresh = False

    async def carry(self) -> None:
        """Bring the job to its end, or back into the queue."""
        lease = self._run.lease
        try:
            job = await self._ledger.job(lease.job_id)
        except NotFoundError:
            await self._ledger.finish(lease, None)
            return
        if job.completed:
            await self._ledger.finish(lease, job)
        elif job.active:
            await self._adopt(job)
        elif self._pool is None:
            await self._parts.queue.nack(lease)
        else:
            await self._start(job, self._pool)

    # ----------------------------------------------------------------------------------------------- beginning

    async def _start(self, job: Job, pool: Pool) -> None:
        warm = self._parts.own.take_warm(pool)
        runner = warm or self._parts.own.new_runner(pool)
        runner = evolve(runner, jobs=(job.id,), status=RunnerStatus.STARTING)
        fact = Assigned(job.attempt + 1, runner.id, runner.name, self._ledger.new_id("container"), pool.config.name)
        assigned = await self._ledger.advance(job, fact, lease=self._run.lease, runner=runner)
        if assigned is None:  # it moved on meanwhile: cancelled, most likely
            if warm is not None:
                pool.idle.insert(0, warm)
            await self.carry()
            return
        try:
            container = await self._container(assigned, pool, warm)
        except ContainerStartError as error:
            await self._parts.own.sweep({RUNNER_LABEL: runner.id})
            await self._not_started(assigned, pool, runner, error)
            return
        self._parts.own.started(pool)
        self._fresh = assigned.attempt == 1
        await self._attend(assigned, pool.containers, container, evolve(runner, status=RunnerStatus.BUSY))

    async def _container(self, job: Job, pool: Pool, warm: Runner | None) -> Container:
        try:
            spec = self._parts.plugins.filter_runner_spec(self._spec(job, pool), job)
        except PluginError as error:
            raise ContainerStartError(str(error), retryable=False) from error
        async with deadline(self._clock, pool.config.bootstrap_timeout.total_seconds()) as scope:
            if warm is not None and isinstance(pool.containers, Warm):
                container = await pool.containers.release(warm.container_id or "", spec)
            else:
                container = await pool.containers.start(spec)
        if scope.cancelled_caught:
            raise ContainerStartError(f"not started within the pool's bootstrap_timeout of {pool.config.bootstrap_timeout}")
        return container

    def _spec(self, job: Job, pool: Pool) -> ContainerSpec:
        request, config = job.request, pool.config
        command = request.command or config.command
        if command is None:
            raise ContainerStartError(
                f"the job has no command and pool {config.name!r} has none to run instead", retryable=False
            )
        if request.image and request.image != config.image and not config.allow_image:
            raise ContainerStartError(f"pool {config.name!r} does not let jobs name their image", retryable=False)
        return ContainerSpec(
            name=f"rh-{self._parts.hub}-{job.id}-a{job.attempt}",
            command=command,
            image=request.image or config.image,
            env={**config.env, "CI": "true", "RUNNERHUB_JOB_ID": job.id, "RUNNERHUB_ATTEMPT": str(job.attempt), **request.env},
            labels={
                HUB_LABEL: self._parts.hub,
                JOB_LABEL: job.id,
                ATTEMPT_LABEL: str(job.attempt),
                RUNNER_LABEL: job.runner_id or "",
            },
            resources=Resources(
                cpus=request.resources.cpus or config.resources.cpus,
                memory_mb=request.resources.memory_mb or config.resources.memory_mb,
                pids=request.resources.pids or config.resources.pids,
            ),
            workspace=request.workspace,
        )

    async def _not_started(self, job: Job, pool: Pool, runner: Runner, error: ContainerStartError) -> None:
        reason = Reason.INFRASTRUCTURE if error.retryable else Reason.START_FAILED
        if error.retryable:
            await self._parts.own.start_failed(pool, runner, str(error))
        await self._interrupt(job, str(error), retryable=error.retryable, reason=reason)

    async def _interrupt(
        self, job: Job, message: str, *, retryable: bool = True, reason: Reason = Reason.INFRASTRUCTURE
    ) -> None:
        fact = Interrupted(job.attempt, message, retryable, self._config.max_interruptions, reason)
        after = await self._end(job, fact)
        if after is not None and not after.completed:
            pause = self._config.start_backoff.total_seconds() * 2.0 ** (after.interruptions - 1)
            pause = min(pause, self._config.start_backoff_most.total_seconds())
            await self._parts.queue.nack(self._run.lease, delay=timedelta(seconds=pause))

    # ------------------------------------------------------------------------------------------------ adopting

    async def _adopt(self, job: Job) -> None:
        found = await self._find(job)
        if found is None:
            # Absence is not death: what was on its way when the last life ended may yet appear.
            await self._clock.sleep(self._config.reap_interval.total_seconds())
            found = await self._find(job)
        if found is None:
            await self._interrupt(job, "its container is gone")
            return
        runner = await self._parts.storage.runners.get(job.runner_id or "")
        await self._attend(job, *found, runner and evolve(runner, status=RunnerStatus.BUSY))

    async def _find(self, job: Job) -> tuple[ContainerBackend, Container] | None:
        for containers in self._parts.own.backends:
            for container in await containers.find({RUNNER_LABEL: job.runner_id or ""}):
                return containers, container
        return None

    # ----------------------------------------------------------------------------------------------- attending

    async def _attend(self, job: Job, containers: ContainerBackend, container: Container, runner: Runner | None) -> None:
        started = await self._ledger.advance(job, Started(job.attempt), lease=None, runner=runner)
        job = started or job
        if job.cancellation is not None:
            self._run.stop.set()
        status = await self._watch(job, containers, container.id)
        fact: Fact = Ended(job.attempt, status)
        if self._timed_out:
            fact = TimedOut(job.attempt, f"longer than its timeout of {self._limit(job)}")
        await self._end(job, fact)
        await containers.remove(container.id)

    async def _watch(self, job: Job, containers: ContainerBackend, container_id: str) -> ExitStatus:
        recorder = Recorder(
            self._parts.storage.logs,
            self._parts.bus.logged,
            self._clock,
            self._parts.scanner.redactor({**(self._pool.config.env if self._pool else {}), **job.request.env}),
            job_id=job.id,
            attempt=job.attempt,
            most=self._config.max_log_bytes,
        )
        status = ExitStatus(code=None, lost="not seen")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._record, recorder, containers, container_id, name=f"log of {job.id}")
            with anyio.CancelScope() as enforcing:
                async with anyio.create_task_group() as enforcement:
                    enforcement.start_soon(self._enforce, job, containers, container_id, name=f"limits of {job.id}")
                    status = await self._exit(containers, container_id)
                    enforcing.cancel()
        return status

    async def _record(self, recorder: Recorder, containers: ContainerBackend, container_id: str) -> None:
        try:
            fresh, self._fresh = self._fresh, False
            try:
                await recorder.record(containers, container_id, fresh=fresh)
            except UnavailableError:
                await self._persist(lambda: recorder.record(containers, container_id))
        except NotFoundError as error:
            _log.warning("job %s: its log ends early: %s", self._run.lease.job_id, error)

    async def _exit(self, containers: ContainerBackend, container_id: str) -> ExitStatus:
        try:
            return await self._persist(lambda: containers.wait(container_id))
        except NotFoundError:
            return ExitStatus(code=None, lost="its container was removed")

    async def _enforce(self, job: Job, containers: ContainerBackend, container_id: str) -> None:
        left = self._limit(job) - (self._clock.now() - (job.started_at or self._clock.now()))
        self._timed_out = not await wait_at_most(self._clock, max(0.0, left.total_seconds()), self._run.stop)
        await self._persist(lambda: containers.stop(container_id, self._config.cancel_grace))

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call a backend until it answers."""
        while True:
            try:
                return await call()
            except UnavailableError as error:
                _log.warning("job %s: waiting for the backend: %s", self._run.lease.job_id, error)
            await self._clock.sleep(_RETRY_SECONDS)

    async def _end(self, job: Job, fact: Fact) -> Job | None:
        after = await self._ledger.advance(job, fact, lease=self._run.lease, remove_runner=job.runner_id)
        self._run.ended = True
        return after

    def _limit(self, job: Job) -> timedelta:
        return job.request.timeout or (self._pool.config.job_timeout if self._pool else DEFAULT_TIMEOUT)
