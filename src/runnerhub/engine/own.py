"""The hub's own runners: pools of ephemeral ones, one job each, some of them kept warm."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from random import Random

import anyio
from attrs import define, evolve, field

from runnerhub.engine.clock import deadline, wait_at_most
from runnerhub.engine.ledger import Ledger
from runnerhub.engine.planner import Offer, warm
from runnerhub.model.config import HubConfig, PoolConfig
from runnerhub.model.container import HUB_LABEL, RUNNER_LABEL, ContainerSpec
from runnerhub.model.errors import ContainerStartError, UnavailableError
from runnerhub.model.event import RunnerRemoved, RunnerStarted, RunnerStartFailed
from runnerhub.model.runner import Runner, RunnerKind, RunnerStatus
from runnerhub.model.status import PoolStatus
from runnerhub.protocols import Clock, ContainerBackend, Warm

_log = logging.getLogger("runnerhub.pool")
_FAILURES_BEFORE_BACKOFF = 2


@define(eq=False)
class Pool:
    """One pool as it stands now: the jobs that its runners have, and the warm runners that have none yet."""

    config: PoolConfig
    containers: ContainerBackend
    jobs: set[str] = field(factory=set)
    idle: list[Runner] = field(factory=list)
    preparing: int = 0
    failures: int = 0
    resume_at: float = 0.0

    def backing_off(self, now: float) -> float:
        """Seconds until it may start a runner again; 0 when it may now."""
        return max(0.0, self.resume_at - now)


class OwnRunners:
    """All pools of one hub."""

    def __init__(
        self, config: HubConfig, pools: Sequence[Pool], ledger: Ledger, clock: Clock, *, hub: str, random: Random
    ) -> None:
        self._config, self._ledger, self._clock, self._hub, self._random = config, ledger, clock, hub, random
        self.pools: Mapping[str, Pool] = {pool.config.name: pool for pool in pools}
        self._refill = anyio.Event()

    @property
    def backends(self) -> list[ContainerBackend]:
        """The container backends in use, each once."""
        return list({id(pool.containers): pool.containers for pool in self.pools.values()}.values())

    def status(self) -> tuple[PoolStatus, ...]:
        """All pools at this moment."""
        now = self._clock.monotonic()
        return tuple(
            PoolStatus(
                name=pool.config.name,
                labels=pool.config.labels,
                max_runners=pool.config.max_runners,
                starting=pool.preparing,
                busy=len(pool.jobs),
                idle=len(pool.idle),
                failures=pool.failures,
                backing_off_for=pool.backing_off(now),
            )
            for pool in self.pools.values()
        )

    def offers(self) -> list[Offer]:
        """What the pools can take."""
        now = self._clock.monotonic()
        return [
            Offer(
                name=name,
                labels=pool.config.label_set,
                busy=len(pool.jobs),
                most=pool.config.max_runners,
                only=frozenset(pool.config.repositories),
                backing_off=pool.backing_off(now) > 0,
            )
            for name, pool in self.pools.items()
        ]

    def next_resume(self) -> float | None:
        """Seconds until the first pool that backs off may start again."""
        now = self._clock.monotonic()
        return min((wait for pool in self.pools.values() if (wait := pool.backing_off(now))), default=None)

    def new_runner(self, pool: Pool) -> Runner:
        """A runner that is about to start."""
        runner_id = self._ledger.new_id("runner")
        return Runner(
            id=runner_id,
            name=f"{pool.config.name}-{runner_id[-6:]}",
            labels=pool.config.labels,
            kind=RunnerKind.EPHEMERAL,
            status=RunnerStatus.STARTING,
            created_at=self._clock.now(),
            pool=pool.config.name,
            hub=self._hub,
        )

    def started(self, pool: Pool) -> None:
        """A runner of the pool started: whatever was wrong is over."""
        pool.failures, pool.resume_at = 0, 0.0

    async def start_failed(self, pool: Pool, runner: Runner, error: str) -> None:
        """A runner did not start, by no fault of its job: its slot is free, and after two in a row the pool backs off."""
        pool.failures += 1
        if pool.failures >= _FAILURES_BEFORE_BACKOFF:
            doubled = self._config.start_backoff.total_seconds() * 2.0 ** (pool.failures - _FAILURES_BEFORE_BACKOFF)
            pause = min(self._config.start_backoff_most.total_seconds(), doubled) * self._random.uniform(0.5, 1)
            pool.resume_at = self._clock.monotonic() + pause
        _log.warning("pool %s: runner %s did not start (%d in a row): %s", pool.config.name, runner.name, pool.failures, error)
        data = {"name": runner.name, "pool": runner.pool, "error": error, "failures": pool.failures}
        await self._ledger.tell(RunnerStartFailed(at=self._clock.now(), runner_id=runner.id, data=data))

    async def sweep(self, labels: Mapping[str, str]) -> None:
        """Remove all containers with these labels."""
        for containers in self.backends:
            for container in await containers.find(labels):
                await containers.remove(container.id)

    # ----------------------------------------------------------------------------------------------- warm ones

    def refill(self) -> None:
        """Have another look at how many warm runners there should be."""
        self._refill.set()

    async def keep_warm(self) -> None:
        """Keep `min_idle` warm runners in every pool whose backend can prepare them; as long as the hub is open."""
        while any(pool.config.min_idle and isinstance(pool.containers, Warm) for pool in self.pools.values()):
            self._refill = anyio.Event()
            for pool in self.pools.values():
                if isinstance(pool.containers, Warm):
                    try:
                        await self._level(pool, pool.containers)
                    except UnavailableError as error:
                        _log.warning("pool %s: warm runners wait: %s", pool.config.name, error)
            await wait_at_most(self._clock, self._config.poll_interval.total_seconds(), self._refill)

    def take_warm(self, pool: Pool) -> Runner | None:
        """The oldest warm runner, if there is one."""
        return pool.idle.pop(0) if pool.idle else None

    async def discard_warm(self) -> None:
        """Remove all warm runners."""
        for pool in self.pools.values():
            while pool.idle:
                await self._discard(pool, pool.idle[-1])

    async def _level(self, pool: Pool, backend: Warm) -> None:
        stale = self._clock.now() - pool.config.idle_timeout
        for runner in [one for one in pool.idle if one.created_at <= stale]:
            await self._discard(pool, runner)
        config = pool.config
        missing = warm(min_idle=config.min_idle, idle=len(pool.idle), occupied=len(pool.jobs), most=config.max_runners)
        for _ in range(-missing):
            await self._discard(pool, pool.idle[-1])
        for _ in range(missing):
            if not pool.backing_off(self._clock.monotonic()):
                await self._prepare(pool, backend)

    async def _prepare(self, pool: Pool, backend: Warm) -> None:
        runner = self.new_runner(pool)
        spec = ContainerSpec(
            name=f"rh-{self._hub}-{runner.id}",
            command=(),
            image=pool.config.image,
            labels={HUB_LABEL: self._hub, RUNNER_LABEL: runner.id},
            resources=pool.config.resources,
        )
        pool.preparing += 1
        try:
            async with deadline(self._clock, pool.config.bootstrap_timeout.total_seconds()) as scope:
                container = await backend.prepare(spec)
        except ContainerStartError as error:
            await self.start_failed(pool, runner, str(error))
            return
        finally:
            pool.preparing -= 1
        if scope.cancelled_caught:
            await self.start_failed(pool, runner, f"not ready within {pool.config.bootstrap_timeout}")
            return
        runner = evolve(runner, status=RunnerStatus.IDLE, container_id=container.id)
        data = {"name": runner.name, "pool": runner.pool}
        await self._ledger.save_runner(runner, RunnerStarted(at=self._clock.now(), runner_id=runner.id, data=data))
        self.started(pool)
        pool.idle.append(runner)

    async def _discard(self, pool: Pool, runner: Runner) -> None:
        pool.idle.remove(runner)
        await pool.containers.remove(runner.container_id or "")
        data = {"name": runner.name, "pool": runner.pool}
        await self._ledger.delete_runner(runner.id, RunnerRemoved(at=self._clock.now(), runner_id=runner.id, data=data))
