"""Runners that registered from elsewhere: they live by their heartbeats, and their own agents run the jobs."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from runnerhub.engine.ledger import Ledger
from runnerhub.engine.planner import Offer
from runnerhub.model import check
from runnerhub.model.config import HubConfig
from runnerhub.model.errors import ConflictError, NotFoundError
from runnerhub.model.event import (
    Event,
    RunnerDraining,
    RunnerOffline,
    RunnerOnline,
    RunnerRegistered,
    RunnerRemoved,
)
from runnerhub.model.job import DEFAULT_TIMEOUT, Conclusion, Job
from runnerhub.model.lifecycle import Assigned, Interrupted, Reported, Started, TimedOut
from runnerhub.model.queue import Lease
from runnerhub.model.runner import Capabilities, ResourceInfo, Runner, RunnerKind, RunnerStatus
from runnerhub.protocols import Clock, QueueBackend, StorageBackend


@frozen
class Heartbeat:
    """What a registered runner is told in answer to its heartbeat: jobs to begin, and jobs to stop."""

    begin: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    draining: bool = False


class RegisteredRunners:
    """The registered runners of one storage, and the leases of the jobs that they have."""

    def __init__(
        self, config: HubConfig, storage: StorageBackend, queue: QueueBackend, ledger: Ledger, clock: Clock, *, hub: str
    ) -> None:
        self._config, self._storage, self._queue = config, storage, queue
        self._ledger, self._clock, self._hub = ledger, clock, hub
        self._known: dict[str, Runner] = {}
        self.leases: dict[str, Lease] = {}

    async def open(self) -> None:
        """Know the runners of an earlier life."""
        for runner in await self._storage.runners.list():
            if runner.kind is RunnerKind.REGISTERED:
                self._known[runner.id] = runner

    def offers(self) -> list[Offer]:
        """What the runners can take."""
        return [
            Offer(
                name=runner.id,
                labels=runner.label_set,
                busy=len(runner.jobs),
                most=0 if runner.draining else runner.capabilities.max_concurrent_jobs,
                pool=False,
                online=runner.online,
            )
            for runner in self._known.values()
        ]

    async def register(
        self, name: str, labels: Sequence[str], os: str, architecture: str, capabilities: Capabilities, info: ResourceInfo
    ) -> Runner:
        """A new runner. Raises `ConflictError` when the name is taken."""
        check.integer(capabilities.max_concurrent_jobs, "capabilities.max_concurrent_jobs", least=1, most=10_000)
        now = self._clock.now()
        runner = Runner(
            id=self._ledger.new_id("runner"),
            name=check.text(name, "name", longest=64),
            labels=tuple(labels),
            kind=RunnerKind.REGISTERED,
            status=RunnerStatus.IDLE,
            created_at=now,
            last_seen=now,
            hub=self._hub,
            os=check.text(os, "os", longest=64),
            architecture=check.text(architecture, "architecture", longest=64),
            capabilities=capabilities,
            resource_info=info,
        )
        await self._write(runner, RunnerRegistered)
        return runner

    async def heartbeat(self, runner_id: str, running: Sequence[str]) -> Heartbeat:
        """The runner is alive and has these jobs running; the answer says what to begin and what to stop."""
        runner = await self.get(runner_id)
        back = not runner.online
        status = RunnerStatus.BUSY if runner.jobs else RunnerStatus.IDLE
        await self._write(evolve(runner, last_seen=self._clock.now(), status=status), RunnerOnline if back else None)
        jobs = {job_id: await self._ledger.job(job_id) for job_id in runner.jobs}
        return Heartbeat(
            begin=tuple(job.id for job in jobs.values() if job.assigned and job.cancellation is None),
            stop=tuple({*running, *jobs} - {job.id for job in jobs.values() if job.cancellation is None}),
            draining=runner.draining,
        )

    async def report(
        self, runner_id: str, job_id: str, attempt: int, conclusion: Conclusion | None, exit_code: int | None, message: str
    ) -> Job:
        """The runner says that it began a job (no conclusion) or how it ended."""
        runner = await self.get(runner_id)
        job = await self._ledger.fresh(job_id)
        if job.runner_id != runner.id or job.attempt != attempt:
            raise ConflictError(f"attempt {attempt} of job {job_id} is not with runner {runner.name!r}")
        if conclusion is None:
            return await self._ledger.advance(job, Started(attempt)) or job
        lease = self.leases.get(job_id)
        freed = self._without(runner.id, job_id)
        fact = Reported(attempt, conclusion, exit_code, message)
        after = await self._ledger.advance(job, fact, lease=lease, runner=freed)
        self.leases.pop(job_id, None)
        return after or job

    async def drain(self, runner_id: str, by: str, why: str) -> Runner:
        """The runner takes nothing more. Draining twice is fine."""
        runner = await self.get(runner_id)
        if not runner.draining:
            runner = evolve(runner, draining=True)
            await self._write(runner, RunnerDraining, by=by, why=why)
        return runner

    async def delete(self, runner_id: str) -> None:
        """Forget the runner. Raises `ConflictError` while it has a job."""
        runner = await self.get(runner_id)
        if runner.jobs:
            raise ConflictError(f"runner {runner.name!r} has a job; drain it first")
        await self._ledger.delete_runner(runner_id, self._event(RunnerRemoved, runner))
        self._known.pop(runner_id, None)

    async def get(self, runner_id: str) -> Runner:
        """A registered runner. Raises `NotFoundError`, or `ConflictError` for one of the hub's own."""
        if known := self._known.get(runner_id):
            return known
        runner = await self._storage.runners.get(runner_id)
        if runner is None:
            raise NotFoundError("runner", runner_id)
        if runner.kind is not RunnerKind.REGISTERED:
            raise ConflictError(f"runner {runner.name!r} is the hub's own and takes care of itself")
        return self._known.setdefault(runner_id, runner)

    # ------------------------------------------------------------------------------------------ for the engine

    async def assign(self, lease: Lease, runner_id: str) -> None:
        """Give a leased job to a runner; its next heartbeat tells it."""
        job = await self._ledger.job(lease.job_id)
        runner = self._known[runner_id]
        taken = evolve(runner, jobs=(*runner.jobs, job.id), status=RunnerStatus.BUSY)
        self._known[runner_id] = taken
        self.leases[job.id] = lease
        fact = Assigned(job.attempt + 1, runner.id, runner.name, "")
        if await self._ledger.advance(job, fact, lease=lease, runner=taken) is None:
            self._without(runner_id, job.id)
            self.leases.pop(job.id)
            await self._ledger.finish(lease, await self._ledger.fresh(job.id))

    def holds(self, job: Job) -> bool:
        """Whether the job is with a registered runner."""
        return job.runner_id in self._known and job.pool is None

    async def look(self) -> None:
        """Mark silent runners offline, end what took too long, and give up the jobs of runners lost for good."""
        now = self._clock.now()
        for runner in list(self._known.values()):
            silent = now - (runner.last_seen or runner.created_at)
            if silent >= self._config.heartbeat_timeout and runner.online:
                await self._write(evolve(runner, status=RunnerStatus.OFFLINE), RunnerOffline)
            for job_id in runner.jobs:
                job = await self._ledger.job(job_id)
                limit = job.request.timeout or DEFAULT_TIMEOUT
                if silent >= self._config.lost_after:
                    await self._give_up(runner, job, f"runner {runner.name} has been silent for {silent}")
                elif job.started_at and now - job.started_at >= limit:
                    await self._end(runner, job, TimedOut(job.attempt, f"longer than its timeout of {limit}"))

    async def _give_up(self, runner: Runner, job: Job, message: str) -> None:
        lease = self.leases.get(job.id)
        after = await self._end(runner, job, Interrupted(job.attempt, message, most=self._config.max_interruptions))
        if after and not after.completed and lease:
            await self._queue.nack(lease)

    async def _end(self, runner: Runner, job: Job, fact: Interrupted | TimedOut) -> Job | None:
        freed = self._without(runner.id, job.id)
        after = await self._ledger.advance(job, fact, lease=self.leases.get(job.id), runner=freed)
        self.leases.pop(job.id, None)
        return after

    def _without(self, runner_id: str, job_id: str) -> Runner:
        runner = self._known[runner_id]
        jobs = tuple(job for job in runner.jobs if job != job_id)
        status = runner.status if jobs or not runner.online else RunnerStatus.IDLE
        freed = self._known[runner_id] = evolve(runner, jobs=jobs, status=status)
        return freed

    async def _write(self, runner: Runner, kind: type[Event] | None, **data: object) -> None:
        await self._ledger.save_runner(runner, self._event(kind, runner, **data) if kind else None)
        self._known[runner.id] = runner

    def _event(self, kind: type[Event], runner: Runner, **data: object) -> Event:
        return kind(at=self._clock.now(), runner_id=runner.id, data={"name": runner.name, **data})
