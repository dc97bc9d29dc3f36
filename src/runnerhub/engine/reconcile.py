"""Records = leases = containers: at the start, and again and again."""

from __future__ import annotations

import logging

from runnerhub.engine.pool import RunnerPool
from runnerhub.engine.runs import Parts, Runs
from runnerhub.engine.scheduler import Scheduler
from runnerhub.model.container import ATTEMPT_LABEL, HUB_LABEL, JOB_LABEL, RUNNER_LABEL, Container
from runnerhub.model.errors import RunnerHubError
from runnerhub.model.event import RunnerRemoved
from runnerhub.model.job import JobQuery, JobStatus
from runnerhub.model.queue import Lease
from runnerhub.model.runner import RunnerKind
from runnerhub.protocols import ContainerBackend

_log = logging.getLogger("runnerhub.reconcile")
_PAGE = 500


class Reconcile:
    """Keeps the hub's own leases alive, takes over those of the dead, and removes what belongs to nobody."""

    def __init__(
        self, parts: Parts, pool: RunnerPool, scheduler: Scheduler, runs: Runs, *, first: bool, together: bool
    ) -> None:
        self._parts, self._pool, self._scheduler, self._runs = parts, pool, scheduler, runs
        self._first, self._together = first, together
        self._suspects: set[str] = set()

    async def start(self) -> None:
        """Adopt what an earlier life of this hub left running; `first`: no other process has its name."""
        previous = frozenset({self._parts.hub}) if self._first else frozenset[str]()
        await self._reap(previous)
        await self._sweep()

    async def keep_alive(self) -> None:
        """Extend the leases, and stop work on those that are lost; run by the hub as long as it is open."""
        ttl = self._parts.config.lease_ttl
        while True:
            try:
                await self._extend()
                await self._reap()
                await self._pool.registered.look()
                if self._first:
                    await self._scheduler.announce()
            except RunnerHubError as error:
                _log.warning("leases cannot be extended now: %s", error)
            await self._parts.clock.sleep(ttl.total_seconds() / 3)

    async def sweep(self) -> None:
        """Remove what belongs to nobody, put back what lost its entry; run by the hub as long as it is open."""
        while True:
            await self._parts.clock.sleep(self._parts.config.reap_interval.total_seconds())
            try:
                if not self._together:
                    await self._put_again()
                await self._sweep()
            except RunnerHubError as error:
                _log.warning("nothing can be reconciled now: %s", error)

    async def _extend(self) -> None:
        mine = dict(self._runs.live)
        held = await self._parts.queue.extend(self._parts.hub, self._parts.config.lease_ttl)
        for job_id, run in mine.items():
            if job_id not in held and not run.ended and self._runs.live.get(job_id) is run:
                _log.warning("job %s: its lease is lost", job_id)
                run.scope.cancel()
        for job_id in [job_id for job_id in self._pool.registered.leases if job_id not in held]:
            self._pool.registered.leases.pop(job_id)

    async def _reap(self, previous: frozenset[str] = frozenset()) -> None:
        for lease in await self._parts.queue.reap(self._parts.hub, self._parts.config.lease_ttl, previous):
            if lease.job_id not in self._runs.live:
                await self._take(lease)

    async def _take(self, lease: Lease) -> None:
        job = await self._parts.storage.jobs.get(lease.job_id)
        if job is not None and job.active and self._pool.registered.holds(job):
            self._pool.registered.leases[job.id] = lease
        else:
            self._runs.begin(lease, None)

    async def _put_again(self) -> None:
        query = JobQuery(status=JobStatus.QUEUED, active=False, sort="created_at", descending=False, limit=_PAGE)
        while True:
            page = await self._parts.storage.jobs.list(query)
            await self._parts.ledger.put_again(page.jobs)
            if len(page.jobs) < _PAGE:
                return
            query = JobQuery(
                status=query.status, active=False, sort=query.sort, descending=False, limit=_PAGE, offset=query.offset + _PAGE
            )

    async def _sweep(self) -> None:
        """Remove what no live job has: at once when the job is known to be over, else when it is seen a second time."""
        suspects: set[str] = set()
        for containers in self._pool.own.backends:
            for container in await containers.find({HUB_LABEL: self._parts.hub}):
                if await self._belongs(container):
                    continue
                if container.id in self._suspects or await self._over(container):
                    await self._remove(containers, container)
                else:
                    suspects.add(container.id)
        self._suspects = suspects
        for runner in await self._parts.storage.runners.list():
            if runner.kind is RunnerKind.EPHEMERAL and runner.hub == self._parts.hub and not self._has(runner.id):
                jobs = [await self._parts.storage.jobs.get(job_id) for job_id in runner.jobs]
                if not any(job and job.active and job.runner_id == runner.id for job in jobs):
                    data = {"name": runner.name, "pool": runner.pool}
                    event = RunnerRemoved(at=self._parts.clock.now(), runner_id=runner.id, data=data)
                    await self._parts.ledger.delete_runner(runner.id, event)

    def _has(self, runner_id: str) -> bool:
        return any(runner.id == runner_id for pool in self._pool.own.pools.values() for runner in pool.idle)

    async def _belongs(self, container: Container) -> bool:
        if container.labels.get(JOB_LABEL) in self._runs.live or self._has(container.labels.get(RUNNER_LABEL, "")):
            return True
        runner = await self._parts.storage.runners.get(container.labels.get(RUNNER_LABEL, ""))
        return runner is not None and any(job_id in self._runs.live for job_id in runner.jobs)

    async def _over(self, container: Container) -> bool:
        job = await self._parts.storage.jobs.get(container.labels.get(JOB_LABEL, ""))
        return job is not None and (job.completed or str(job.attempt) != container.labels.get(ATTEMPT_LABEL))

    async def _remove(self, containers: ContainerBackend, container: Container) -> None:
        _log.info("container %s belongs to no job: removed", container.name)
        await containers.remove(container.id)
