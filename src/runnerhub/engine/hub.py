"""The Hub: builds the parts, owns their lifetimes, and is the door for everybody who embeds it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from random import Random, SystemRandom
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
from attrs import evolve

from runnerhub.engine.bus import Bus
from runnerhub.engine.clock import SystemClock, deadline
from runnerhub.engine.identity import Identity
from runnerhub.engine.ledger import Ledger
from runnerhub.engine.logs import LogLines
from runnerhub.engine.own import OwnRunners, Pool
from runnerhub.engine.planner import STRATEGIES, Place
from runnerhub.engine.plugins import Plugins
from runnerhub.engine.pool import RunnerPool
from runnerhub.engine.reconcile import Reconcile
from runnerhub.engine.registered import RegisteredRunners
from runnerhub.engine.retention import Retention
from runnerhub.engine.runs import Parts, Runs
from runnerhub.engine.scheduler import Scheduler
from runnerhub.hookspecs import Subscriber
from runnerhub.model.config import BackendOptions, HubConfig
from runnerhub.model.container import HUB_LABEL
from runnerhub.model.errors import ConfigurationError, ConflictError, HubStateError
from runnerhub.model.event import Event
from runnerhub.model.job import Job, JobPage, JobQuery, JobRequest
from runnerhub.model.lifecycle import CancelRequested
from runnerhub.model.log import LogLine
from runnerhub.model.status import HubStatus
from runnerhub.protocols import Clock, ContainerBackend, HasQueue, QueueBackend, StorageBackend
from runnerhub.scanner.scanner import Scanner

_log = logging.getLogger("runnerhub")
_CLOSING_SECONDS = 30.0


class Hub:
    """A fleet of runners: `async with Hub(HubConfig(...)) as hub: await hub.delegate(JobRequest(...))`.

    Backends are chosen by name in the configuration, or given as objects, which wins. Building one acquires nothing
    and needs no running loop. With `observe` it looks at a storage that other processes work on, and starts nothing.
    """

    def __init__(
        self,
        config: HubConfig | None = None,
        *,
        storage: StorageBackend | None = None,
        queue: QueueBackend | None = None,
        containers: ContainerBackend | Mapping[str, ContainerBackend] | None = None,
        plugins: Sequence[object] = (),
        place: Place | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        observe: bool = False,
    ) -> None:
        self.config = config or HubConfig()
        self._given = storage, queue, containers
        self._more_plugins = plugins
        self._place = place or STRATEGIES[self.config.placement]
        self._clock = clock or SystemClock()
        self._random = random or SystemRandom()
        self._observe = observe
        self._stack: AsyncExitStack | None = None

    # -------------------------------------------------------------------------------------------------- verbs

    async def delegate(self, request: JobRequest) -> Job:
        """Accept a job: it is durable when this returns. Idempotent by (repository, github_job_id) where given."""
        (job,) = await self.delegate_many([request])
        return job

    async def delegate_many(self, requests: Sequence[JobRequest]) -> list[Job]:
        """Accept several jobs in one transaction, in order."""
        return await self._opened.ledger.create(requests)

    async def job(self, job_id: str) -> Job:
        """A job as it is stored. Raises `NotFoundError`."""
        return await self._opened.ledger.fresh(job_id)

    async def jobs(self, query: JobQuery | None = None) -> JobPage:
        """A page of jobs, newest first unless the query says otherwise."""
        return await self._opened.storage.jobs.list(query or JobQuery())

    async def wait(self, job_id: str, timeout: timedelta | float | None = None) -> Job:  # noqa: ASYNC109  (the hub's clock)
        """The job, once it has completed. Raises `NotFoundError`, and `TimeoutError` after `timeout` (seconds)."""
        if timeout is None:
            return await self._completed(job_id)
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        async with deadline(self._clock, seconds) as scope:
            job = await self._completed(job_id)
        if scope.cancelled_caught:
            raise TimeoutError(f"job {job_id} has not completed after {seconds:g} s")
        return job

    def logs(self, job_id: str, *, follow: bool = False, after: int = 0) -> AsyncIterator[LogLine]:
        """Lines behind a number, in order; with `follow` until the job has completed. Raises `NotFoundError`."""
        parts = self._opened
        return LogLines(
            parts.storage.logs, parts.ledger, parts.bus.logged, self._clock, job_id=job_id, after=after, follow=follow
        )

    async def cancel(self, job_id: str, *, by: str, why: str = "") -> Job:
        """Ask for a job's end; returns at once, the job ends after `cancel_grace` at the latest. Again is fine.

        Raises `NotFoundError`, and `ConflictError` when it has completed.
        """
        job = await self._opened.ledger.fresh(job_id)
        if job.completed:
            raise ConflictError(f"job {job_id} has completed already ({job.conclusion})")
        return await self._opened.ledger.advance(job, CancelRequested(by, why)) or await self.job(job_id)

    async def retry(self, job_id: str, *, by: str) -> Job:
        """Delegate a completed job's request once more, as a new job. Raises `ConflictError` while it has not completed."""
        job = await self._opened.ledger.fresh(job_id)
        if not job.completed:
            raise ConflictError(f"job {job_id} has not completed; cancel it first")
        request = evolve(job.request, github_job_id=None, metadata={**job.request.metadata, "retried_by": by})
        (again,) = await self._opened.ledger.create([request], retry_of=job.id)
        return again

    def subscribe(self, since: int | None = None) -> AsyncIterator[Event]:
        """Every event in order: from now on, or all behind a stored sequence. Never loses one that is kept."""
        bus = self._opened.bus
        return bus.subscribe(bus.last if since is None else since)

    async def status(self) -> HubStatus:
        """The hub at this moment: counted, never estimated."""
        parts = self._opened
        stats = await parts.queue.stats()
        return HubStatus(
            name=parts.hub,
            started_at=self._started_at,
            scheduler=self.scheduler.state,
            jobs=await parts.storage.jobs.counts(),
            queues=stats.queues,
            pools=parts.own.status(),
            runners=len(await parts.storage.runners.list()),
        )

    # ----------------------------------------------------------------------------------------------- lifetime

    async def __aenter__(self) -> Self:
        """Open storage, queue and containers in this order, adopt what an earlier life left, and begin."""
        if self._stack is not None:
            raise HubStateError("the hub is open already")
        stack = AsyncExitStack()
        try:
            await self._open(stack)
        except BaseException:
            await stack.aclose()
            raise
        self._stack = stack
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain (unless an error ends it), hand over what still runs, and close in reverse."""
        stack, self._stack = self._stack, None
        if stack is None:
            return
        try:
            if kind is None:
                await self._drain()
        finally:
            with anyio.CancelScope(shield=True):
                await self._hand_over()
            await stack.aclose()

    @property
    def name(self) -> str:
        """Its name among the hubs of its storage, while it is open."""
        return self._opened.hub

    @property
    def _opened(self) -> Parts:
        if self._stack is None:
            raise HubStateError("the hub is not open; use `async with Hub(...) as hub`")
        return self._parts

    async def _open(self, stack: AsyncExitStack) -> None:
        config, clock = self.config, self._clock
        data_dir = data_directory(config)
        plugins = Plugins(self._more_plugins)
        self._started_at: datetime = clock.now()
        name, first = config.name, False
        if not self._observe:
            identity = stack.enter_context(Identity(config.name, data_dir))
            name, first = identity.name, identity.first
        options = BackendOptions(data_dir=data_dir, hub=name, ageing=config.ageing, now=clock.now, monotonic=clock.monotonic)
        storage, queue, together = self._stores(plugins, options)
        await stack.enter_async_context(storage)
        await stack.enter_async_context(queue)
        bus = Bus(storage.events, clock, config.poll_interval.total_seconds())
        await bus.open()
        ledger = Ledger(storage, queue, bus, clock, random=self._random, weights=config.weights, together=together)
        pools = await self._pools(plugins, options, stack)
        own = OwnRunners(config, pools, ledger, clock, hub=name, random=self._random)
        registered = RegisteredRunners(config, storage, queue, ledger, clock, hub=name)
        await registered.open()
        self.pool = RunnerPool(storage.runners, own, registered)
        self.scanner = Scanner(plugins.image_scanners(options), plugins.secret_rules())
        self._parts = Parts(
            config=config,
            storage=storage,
            queue=queue,
            ledger=ledger,
            bus=bus,
            own=own,
            plugins=plugins,
            scanner=self.scanner,
            clock=clock,
            hub=name,
        )
        self.scheduler = Scheduler(self._parts, self.pool, place=self._place, observe=self._observe)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        self._runs: Runs | None = None
        tasks.start_soon(bus.pump, name="events of other processes")
        if self._observe:
            await self.scheduler.open(None)
        else:
            await self._begin(tasks, first=first, together=together)

    async def _begin(self, tasks: anyio.abc.TaskGroup, *, first: bool, together: bool) -> None:
        parts, scheduler = self._parts, self.scheduler

        def freed() -> None:
            scheduler.wake()
            parts.own.refill()

        self._runs = Runs(parts, tasks, freed)
        await scheduler.open(self._runs)
        reconcile = Reconcile(parts, self.pool, scheduler, self._runs, first=first, together=together)
        await reconcile.start()
        for subscriber in parts.plugins.subscribers():
            tasks.start_soon(self._feed, subscriber, parts.bus.last, name="subscriber of a plugin")
        tasks.start_soon(reconcile.keep_alive, name="leases")
        tasks.start_soon(reconcile.sweep, name="reconcile")
        tasks.start_soon(Retention(self.config, parts.storage, self._clock).run, name="retention")
        tasks.start_soon(parts.own.keep_warm, name="warm runners")
        tasks.start_soon(scheduler.dispatch, name="scheduler")

    def _stores(self, plugins: Plugins, options: BackendOptions) -> tuple[StorageBackend, QueueBackend, bool]:
        config, (storage, queue, _) = self.config, self._given
        if storage is None:
            scheme = config.storage.partition(":")[0]
            storage = plugins.storage(
                config.storage, evolve(options, url=config.storage, settings=config.settings.get(scheme, {}))
            )
        if queue is not None:
            return storage, queue, False
        if config.queue is not None:
            scheme = config.queue.partition(":")[0]
            settings = config.settings.get(scheme, {})
            return storage, plugins.queue(config.queue, evolve(options, url=config.queue, settings=settings)), False
        if not isinstance(storage, HasQueue):
            raise ConfigurationError("The storage has no queue of its own", field="queue", value=None, expected="a queue")
        return storage, storage.queue(), True

    async def _pools(self, plugins: Plugins, options: BackendOptions, stack: AsyncExitStack) -> list[Pool]:
        if self._observe:
            return []
        given = self._given[2]
        opened: dict[str, ContainerBackend] = {}
        pools = []
        for index, pool in enumerate(self.config.pools):
            name = pool.containers or self.config.containers
            if name not in opened:
                field = f"pools[{index}].containers" if pool.containers else "containers"
                if given is None:
                    made = plugins.containers(name, evolve(options, settings=self.config.settings.get(name, {})), field)
                elif isinstance(given, Mapping):
                    made = given[name] if name in given else plugins.containers(name, options, field)
                else:
                    made = given
                opened[name] = await stack.enter_async_context(made)
            pools.append(Pool(pool, opened[name]))
        return pools

    async def _completed(self, job_id: str) -> Job:
        parts = self._opened
        while True:
            done = parts.bus.completed.get(job_id)
            if job := await parts.ledger.ended(job_id):
                return job
            await done.wait()

    async def _feed(self, subscriber: Subscriber, since: int) -> None:
        async for event in self._parts.bus.subscribe(since):
            try:
                await subscriber(event)
            except Exception:  # noqa: BLE001  (a stranger's code; logged, and the others hear on)
                _log.exception("a plugin's subscriber failed on %s %d", event.kind, event.sequence)

    async def _drain(self) -> None:
        self.scheduler.close()
        if self._runs is not None:
            async with deadline(self._clock, self.config.drain_timeout.total_seconds()):
                await self._runs.drained()

    async def _hand_over(self) -> None:
        parts, runs = self._parts, self._runs
        self.scheduler.close()
        if runs is None:
            return
        left = bool(runs.live)
        await runs.abandon()
        with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
            if left and not parts.storage.durable:
                await parts.own.sweep({HUB_LABEL: parts.hub})
            await parts.own.discard_warm()
            await parts.queue.extend(parts.hub, timedelta(0))
            await self.scheduler.retract()


def data_directory(config: HubConfig) -> Path:
    """Where a hub of this configuration keeps what it needs: the configured place, or the platform's own."""
    if config.data_dir is not None:
        return config.data_dir
    import platformdirs

    return Path(platformdirs.user_data_dir("runnerhub"))
