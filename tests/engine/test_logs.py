"""The recorder loses nothing and repeats nothing, wherever it is broken off; the end of a long log is said."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import timedelta
from random import Random

import anyio
import pytest

from runnerhub import Hub
from runnerhub.backends.memory import MemoryStorage
from runnerhub.engine.bus import Signals
from runnerhub.engine.clock import SystemClock
from runnerhub.engine.logs import BUFFER_BYTES, LONGEST_LINE, Recorder
from runnerhub.model.config import BackendOptions
from runnerhub.model.container import Container, ContainerSpec, ExitStatus, LogFrame
from runnerhub.model.errors import StorageFullError, UnavailableError
from runnerhub.model.log import LogChunk, LogLine, LogPosition, unpack_all
from runnerhub.scanner.secrets import Redactor
from runnerhub.testing import FakeContainers, FakeRun
from tests.engine.conftest import request

pytestmark = pytest.mark.anyio


class Output(FakeContainers):
    """Output in given pieces, with cursors by bytes; breaks off after some of them as often as it is told to."""

    def __init__(self, pieces: Sequence[bytes], breaks: Sequence[int] = ()) -> None:
        super().__init__()
        self.pieces, self.breaks = pieces, list(breaks)

    async def logs_after(self, container_id: str, cursor: str) -> AsyncGenerator[LogFrame]:
        left = self.breaks.pop(0) if self.breaks else -1
        offset, start = 0, int(cursor or 0)
        for piece in self.pieces:
            offset += len(piece)
            if offset <= start:
                continue
            if left == 0:
                raise UnavailableError("the engine is gone for a moment")
            left -= 1
            yield LogFrame(piece[start - offset :] if start > offset - len(piece) else piece, str(offset))
            await anyio.lowlevel.checkpoint()


class Plain:
    """A backend without cursors."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces

    async def logs(self, container_id: str) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def recorder(storage: MemoryStorage, most: int = 10**9, redactor: Redactor | None = None, attempt: int = 1) -> Recorder:
    return Recorder(storage.logs, Signals(), SystemClock(), redactor or Redactor(), job_id="job_1", attempt=attempt, most=most)


async def stored(storage: MemoryStorage) -> list[LogLine]:
    return unpack_all(await storage.logs.read("job_1", limit=10**6))


def cut(data: bytes, random: Random) -> list[bytes]:
    places = sorted(random.sample(range(1, len(data)), min(len(data) - 1, 30)))
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("seed", range(8))
async def test_broken_off_anywhere_nothing_is_lost_or_repeated(seed: int) -> None:
    random, storage = Random(seed), MemoryStorage(BackendOptions())
    data = b"".join(b"line %d %s\n" % (number, b"x" * random.randrange(40)) for number in range(200)) + b"the end"
    pieces = cut(data, random)
    output = Output(pieces, [random.randrange(len(pieces)) for _ in range(6)])
    for _ in range(7):
        try:
            await recorder(storage).record(output, "c")
        except UnavailableError:
            continue
    assert [line.text for line in await stored(storage)] == data.decode().split("\n")
    assert [line.number for line in await stored(storage)] == list(range(1, 202))


async def test_without_cursors_what_is_stored_is_skipped() -> None:
    storage, data = MemoryStorage(BackendOptions()), b"one\ntwo\nthree\n"
    await recorder(storage).record(Plain([data[:6]]), "c")  # type: ignore[arg-type]
    assert [line.text for line in await stored(storage)] == ["one", "tw"]
    storage = MemoryStorage(BackendOptions())
    await recorder(storage).record(Plain([data[:8]]), "c")  # type: ignore[arg-type]
    await recorder(storage).record(Plain([data[:3], data[3:9], data[9:]]), "c")  # type: ignore[arg-type]
    assert [line.text for line in await stored(storage)] == ["one", "two", "three"]


async def test_a_second_attempt_goes_on_counting() -> None:
    storage = MemoryStorage(BackendOptions())
    await recorder(storage).record(Output([b"a\nb\n"]), "c1")
    await recorder(storage, attempt=2).record(Output([b"c\n"]), "c2")
    assert [(line.number, line.text, line.attempt) for line in await stored(storage)] == [(1, "a", 1), (2, "b", 1), (3, "c", 2)]


async def test_a_log_that_is_too_long_is_cut_and_says_so() -> None:
    storage = MemoryStorage(BackendOptions())
    pieces = [b"%04d\n" % number for number in range(1000)]
    await recorder(storage, most=1024).record(Output(pieces), "c")
    lines = [line.text for line in await stored(storage)]
    assert lines[-1] == "[runnerhub] log truncated: larger than 1024 bytes"
    assert lines[:-1] == [f"{number:04}" for number in range(len(lines) - 1)]
    assert len(lines) <= 206
    assert (await storage.logs.position("job_1")).truncated
    await recorder(storage, most=1024).record(Output(pieces), "c")
    assert [line.text for line in await stored(storage)] == lines


async def test_a_line_without_end_is_cut() -> None:
    storage = MemoryStorage(BackendOptions())
    await recorder(storage).record(Output([b"x" * 10_000] * 30), "c")
    lines = [line.text for line in await stored(storage)]
    assert "".join(lines) == "x" * 300_000
    assert all(len(line) <= LONGEST_LINE + 10_000 for line in lines) or len(lines) == 1


async def test_a_fast_job_waits_for_a_slow_store() -> None:
    class Slow(MemoryStorage):
        most = 0

    storage = Slow(BackendOptions())
    append, recording = storage.logs.append, recorder(storage)

    async def slowly(job_id: str, chunks: Sequence[LogChunk], position: LogPosition) -> None:
        Slow.most = max(Slow.most, recording._buffered)
        await anyio.sleep(0.005)
        await append(job_id, chunks, position)

    storage.logs.append = slowly  # type: ignore[method-assign]
    line = b"y" * 99 + b"\n"
    await recording.record(Output([line * 2000] * 60), "c")
    assert sum(chunk.lines for chunk in await storage.logs.read("job_1", limit=10**6)) == 120_000
    assert Slow.most <= BUFFER_BYTES + 200_000


async def test_a_full_store_stops_the_recording_and_is_told() -> None:
    storage = MemoryStorage(BackendOptions())

    async def full(*_: object) -> None:
        raise StorageFullError("no room")

    append, storage.logs.append = storage.logs.append, full  # type: ignore[method-assign]
    with pytest.raises(StorageFullError):
        await recorder(storage).record(Output([b"a\n", b"b\n"]), "c")
    storage.logs.append = append  # type: ignore[method-assign]
    await recorder(storage).record(Output([b"a\n", b"b\n"]), "c")
    assert [line.text for line in await stored(storage)] == ["a", "b"]


async def test_secrets_of_the_job_are_masked_before_they_are_stored(make_hub: Callable[..., Hub]) -> None:
    containers = FakeContainers(lambda spec: FakeRun(output=(f"token is {spec.env['API_TOKEN']}\n".encode(),)))
    async with make_hub(containers) as hub:
        job = await hub.delegate(request(env={"API_TOKEN": "s3cret-value"}))
        lines = [line.text async for line in hub.logs(job.id, follow=True)]
    assert lines == ["token is ***"]


async def test_following_may_begin_anywhere_and_by_many(make_hub: Callable[..., Hub]) -> None:
    containers = FakeContainers(lambda _: FakeRun(output=tuple(b"%d\n" % number for number in range(50)), seconds=0.2))
    async with make_hub(containers) as hub:
        job = await hub.delegate(request())
        seen: dict[int, list[int]] = {}

        async def follow(after: int) -> None:
            seen[after] = [line.number async for line in hub.logs(job.id, follow=True, after=after)]

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for after in (0, 7, 49, 50, 80):
                    tasks.start_soon(follow, after)
        assert seen == {after: list(range(after + 1, 51)) for after in (0, 7, 49, 50, 80)}
        assert [line.number async for line in hub.logs(job.id, after=48)] == [49, 50]


async def test_an_engine_that_is_gone_for_a_moment_changes_nothing(make_hub: Callable[..., Hub]) -> None:
    class Shaky(FakeContainers):
        calls = 0

        async def wait(self, container_id: str) -> ExitStatus:
            Shaky.calls += 1
            if Shaky.calls < 3:
                raise UnavailableError("not now")
            return await super().wait(container_id)

        async def start(self, spec: ContainerSpec) -> Container:
            if not self.starts:
                self.starts["refused"] += 1
                raise UnavailableError("not now")
            return await super().start(spec)

    Shaky.calls = 0
    async with make_hub(Shaky(), reap_interval=0.05) as hub:
        job = await hub.delegate(request(timeout=timedelta(minutes=1)))
        with anyio.fail_after(30):
            done = await hub.wait(job.id)
        assert done.succeeded
