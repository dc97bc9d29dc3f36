"""What runners exist: the hub's own, one job each, and registered ones that heartbeat from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from runnerhub.engine.own import OwnRunners
from runnerhub.engine.planner import Offer
from runnerhub.engine.registered import Heartbeat, RegisteredRunners
from runnerhub.model.errors import NotFoundError
from runnerhub.model.job import Conclusion, Job
from runnerhub.model.runner import Capabilities, ResourceInfo, Runner
from runnerhub.model.status import PoolStatus
from runnerhub.protocols import RunnerStore

__all__ = ["Heartbeat", "RunnerPool"]


class RunnerPool:
    """All runners. Which jobs they get is the scheduler's business."""

    def __init__(self, store: RunnerStore, own: OwnRunners, registered: RegisteredRunners) -> None:
        self._store, self.own, self.registered = store, own, registered

    async def runners(self) -> list[Runner]:
        """All runners on this storage, oldest first."""
        return await self._store.list()

    async def runner(self, runner_id: str) -> Runner:
        """One of them. Raises `NotFoundError`."""
        runner = await self._store.get(runner_id)
        if runner is None:
            raise NotFoundError("runner", runner_id)
        return runner

    async def register(
        self,
        name: str,
        labels: Sequence[str],
        *,
        os: str = "linux",
        architecture: str = "x64",
        capabilities: Capabilities | None = None,
        resource_info: ResourceInfo | None = None,
    ) -> Runner:
        """A runner comes from elsewhere; it must heartbeat from now on. Raises `ConflictError` when the name is taken."""
        return await self.registered.register(
            name, labels, os, architecture, capabilities or Capabilities(), resource_info or ResourceInfo()
        )

    async def heartbeat(self, runner_id: str, *, running: Sequence[str] = ()) -> Heartbeat:
        """A registered runner is alive; the answer says which jobs to begin and which of those it runs to stop."""
        return await self.registered.heartbeat(runner_id, running)

    async def report(
        self,
        runner_id: str,
        job_id: str,
        *,
        attempt: int,
        conclusion: Conclusion | None = None,
        exit_code: int | None = None,
        message: str = "",
    ) -> Job:
        """A registered runner began a job (no conclusion) or ended it. Repeats are fine.

        Raises `ConflictError` when this attempt is not with this runner: then it must stop working on it.
        """
        return await self.registered.report(runner_id, job_id, attempt, conclusion, exit_code, message)

    async def drain(self, runner_id: str, *, by: str, why: str = "") -> Runner:
        """A registered runner finishes what it has and takes nothing more. Draining twice is fine."""
        return await self.registered.drain(runner_id, by, why)

    async def delete(self, runner_id: str) -> None:
        """Forget a registered runner. Raises `ConflictError` while it has a job."""
        await self.registered.delete(runner_id)

    def status(self) -> tuple[PoolStatus, ...]:
        """The hub's own pools at this moment."""
        return self.own.status()

    def offers(self) -> list[Offer]:
        """Every place for jobs, registered runners first: they are there anyway."""
        return [*self.registered.offers(), *self.own.offers()]
