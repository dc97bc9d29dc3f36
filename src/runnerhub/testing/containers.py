"""Containers that run nothing: a script says what each prints, how long it takes and how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

import anyio
from attrs import define, evolve, field, frozen

from runnerhub.engine.clock import SystemClock, wait_at_most
from runnerhub.model.container import Container, ContainerSpec, ContainerState, ExitStatus, LogFrame
from runnerhub.model.errors import ContainerStartError, NotFoundError
from runnerhub.protocols import Clock


@frozen(kw_only=True)
class FakeRun:
    """What one container does. `seconds` is `None` for one that runs until it is stopped; `deaf` ones ignore TERM."""

    output: tuple[bytes, ...] = ()
    seconds: float | None = 0.0
    exit: ExitStatus = field(factory=lambda: ExitStatus(code=0))
    start_error: ContainerStartError | None = None
    start_seconds: float = 0.0
    deaf: bool = False


@define(eq=False)
class _Fake:
    spec: ContainerSpec
    run: FakeRun
    container: Container
    over: anyio.Event
    stop: anyio.Event


class FakeContainers:
    """A `ContainerBackend` with `ResumableLogs` and `Warm`, in memory.

    One object may serve several hubs one after the other, as a real engine does: closing it ends nothing.
    """

    def __init__(self, script: Callable[[ContainerSpec], FakeRun] | None = None, *, clock: Clock | None = None) -> None:
        self._script = script or (lambda _: FakeRun())
        self._clock = clock or SystemClock()
        self._fakes: dict[str, _Fake] = {}
        self.starts: Counter[str] = Counter()
        self.most_at_once = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Containers go on."""

    @property
    def containers(self) -> list[Container]:
        """All that have not been removed."""
        return [fake.container for fake in self._fakes.values()]

    async def start(self, spec: ContainerSpec) -> Container:
        """Start, or adopt the one that has this name."""
        if spec.name in self._fakes:
            return self._fakes[spec.name].container
        run = self._script(spec)
        if run.start_seconds:
            await self._clock.sleep(run.start_seconds)
        if run.start_error is not None:
            raise run.start_error
        self.starts[spec.name] += 1
        container = Container(id=spec.name, name=spec.name, labels=dict(spec.labels))
        self._fakes[spec.name] = _Fake(spec, run, container, anyio.Event(), anyio.Event())
        if run.seconds == 0:
            self._end(spec.name, run.exit)
        self.most_at_once = max(self.most_at_once, sum(one.exit is None for one in self.containers))
        return self._fakes[spec.name].container

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Have one ready that runs until it is released or removed."""
        run = FakeRun(seconds=None)
        container = Container(id=spec.name, name=spec.name, labels=dict(spec.labels))
        self._fakes[spec.name] = _Fake(spec, run, container, anyio.Event(), anyio.Event())
        return container

    async def release(self, container_id: str, spec: ContainerSpec) -> Container:
        """Let a ready one do what the script says for the job."""
        fake = self._fakes.get(container_id)
        if fake is None:
            raise ContainerStartError(f"warm container {container_id} is gone")
        self.starts[spec.name] += 1
        fake.spec, fake.run = spec, self._script(spec)
        if fake.run.seconds == 0:
            self._end(container_id, fake.run.exit)
        return fake.container

    async def logs(self, container_id: str) -> AsyncIterator[bytes]:
        """All output."""
        async for frame in self.logs_after(container_id, ""):
            yield frame.data

    async def logs_after(self, container_id: str, cursor: str) -> AsyncIterator[LogFrame]:
        """Output behind a cursor: the number of pieces seen."""
        fake = self._fake(container_id)
        for index, piece in enumerate(fake.run.output):
            if index >= int(cursor or 0):
                yield LogFrame(piece, str(index + 1))
        await self.wait(container_id)

    async def wait(self, container_id: str) -> ExitStatus:
        """How it ended, once it has."""
        fake = self._fake(container_id)
        if fake.container.exit is None:
            if fake.run.seconds is None:
                await fake.over.wait()
            elif not await wait_at_most(self._clock, fake.run.seconds, fake.over):
                self._end(container_id, fake.run.exit)
        if container_id not in self._fakes:
            raise NotFoundError("container", container_id)
        return fake.container.exit or ExitStatus(code=None, lost="gone")

    async def stop(self, container_id: str, grace: timedelta) -> None:
        """TERM, which deaf ones do not hear, then KILL."""
        fake = self._fakes.get(container_id)
        if fake is None or fake.container.exit is not None:
            return
        if fake.run.deaf:
            await self._clock.sleep(grace.total_seconds())
        number = 9 if fake.run.deaf else 15
        self._end(container_id, ExitStatus(code=128 + number, signal=number))

    async def remove(self, container_id: str) -> None:
        """Forget it."""
        fake = self._fakes.pop(container_id, None)
        if fake is not None:
            fake.over.set()

    async def find(self, labels: Mapping[str, str]) -> list[Container]:
        """All that carry these labels."""
        return [one for one in self.containers if labels.items() <= one.labels.items()]

    def lose(self, container_id: str) -> None:
        """End one as an engine does that was restarted: nobody knows how."""
        self._end(container_id, ExitStatus(code=None, lost="the engine was restarted"))

    def _end(self, container_id: str, status: ExitStatus) -> None:
        fake = self._fakes.get(container_id)
        if fake is not None and fake.container.exit is None:
            status = evolve(status, finished_at=self._clock.now())
            fake.container = evolve(fake.container, state=ContainerState.EXITED, exit=status)
            fake.over.set()

    def _fake(self, container_id: str) -> _Fake:
        if container_id not in self._fakes:
            raise NotFoundError("container", container_id)
        return self._fakes[container_id]
