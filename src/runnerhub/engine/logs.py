"""Job logs: recorded from containers without loss, followed from storage without repeats."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Self

import anyio
import anyio.to_thread
from attrs import evolve

from runnerhub.engine.bus import Signals
from runnerhub.engine.clock import wait_at_most
from runnerhub.engine.ledger import Ledger
from runnerhub.model.container import LogFrame
from runnerhub.model.errors import RunnerHubError
from runnerhub.model.log import LONGEST_LINE, LogChunk, LogLine, LogPosition, pack, step_after, unpack_all
from runnerhub.protocols import Clock, ContainerBackend, LogStore, ResumableLogs
from runnerhub.scanner.secrets import Redactor

FLUSH_BYTES = 256 * 1024
FLUSH_SECONDS = 0.1
CHUNK_BYTES = 1024 * 1024
BUFFER_BYTES = 4 * 1024 * 1024
IN_THREAD = 32 * 1024
FOLLOW_SECONDS = 0.2


class Recorder:
    """Stores the log of one attempt. Begins where the storage ends, so that a second life of the hub goes on."""

    def __init__(
        self, store: LogStore, signals: Signals, clock: Clock, redactor: Redactor, *, job_id: str, attempt: int, most: int
    ) -> None:
        self._store, self._signals, self._clock, self._redactor = store, signals, clock, redactor
        self._job_id, self._attempt, self._most = job_id, attempt, most
        self._frames: deque[tuple[float, LogFrame]] = deque()
        self._buffered = 0
        self._tail = b""
        self._position = LogPosition()
        self._base = ""
        self._skip = 0
        self._came = anyio.Event()
        self._took = anyio.Event()
        self._end = anyio.Event()
        self._failed: RunnerHubError | None = None

    async def record(self, containers: ContainerBackend, container_id: str, *, fresh: bool = False) -> None:
        """Store all output until the container has exited and all was read; `fresh`: nothing can be stored yet."""
        self._position = LogPosition() if fresh else await self._store.position(self._job_id)
        self._base, self._skip = "", 0
        if self._position.attempt == self._attempt:
            skip, _, self._base = self._position.cursor.partition(":")
            self._skip = int(skip or 0)
        if self._position.truncated:
            return
        self._came, self._end = anyio.Event(), anyio.Event()
        self._frames.clear()
        self._buffered, self._tail = 0, b""
        self._failed = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, tasks.cancel_scope, name=f"log writer of {self._job_id}")
            await self._read(containers, container_id)
        if self._failed is not None:
            raise self._failed

    async def _read(self, containers: ContainerBackend, container_id: str) -> None:
        skip = self._skip
        try:
            async with aclosing(_frames(containers, container_id, self._base)) as frames:
                async for frame in frames:
                    data = frame.data[skip:]
                    skip = max(0, skip - len(frame.data))
                    if data:
                        await self._take(data, frame.cursor)
        except RunnerHubError as error:  # raised by `record`, once what was read is stored
            self._failed = error
        self._end.set()
        self._came.set()

    async def _take(self, data: bytes, cursor: str) -> None:
        self._frames.append((self._clock.now().timestamp(), LogFrame(data, cursor)))
        self._buffered += len(data)
        self._came.set()
        while self._buffered > BUFFER_BYTES:
            self._took = anyio.Event()
            await self._took.wait()

    async def _write(self, reading: anyio.CancelScope) -> None:
        try:
            await self._store_all(reading)
        except RunnerHubError as error:
            self._failed = error
            reading.cancel()

    async def _store_all(self, reading: anyio.CancelScope) -> None:
        while True:
            await self._came.wait()
            ended, self._came = self._end.is_set(), anyio.Event()
            while self._frames:
                await self._store_some(final=False)
                if self._position.truncated:
                    reading.cancel()
                    return
            if ended:
                if self._tail and self._failed is None:
                    await self._store_some(final=True)
                return
            if self._buffered < FLUSH_BYTES:
                await wait_at_most(self._clock, FLUSH_SECONDS, self._end)

    async def _store_some(self, *, final: bool) -> None:
        """Store whole lines of what is buffered, up to a chunk's size; the rest of a line stays as the tail."""
        parts = [self._tail]
        marks: list[tuple[int, float]] = []
        lines, behind = 0, len(self._tail)
        size = behind
        cursors = [(0, self._base, self._skip)]
        while self._frames and size < CHUNK_BYTES:
            at, frame = self._frames.popleft()
            if not marks or at > marks[-1][1]:
                marks.append((lines, at))
            lines += frame.data.count(b"\n")
            parts.append(frame.data)
            size += len(frame.data)
            cursors.append((size, frame.cursor, 0))
        self._buffered -= size - behind
        self._took.set()
        data = b"".join(parts)
        cut = len(data) if final else data.rfind(b"\n") + 1
        if not cut and len(data) >= LONGEST_LINE:
            cut = len(data)
        whole, self._tail = data[:cut], data[cut:]
        self._base, self._skip = _cursor_at(cursors, cut)
        if whole:
            await self._append(whole, tuple(marks) or ((0, self._clock.now().timestamp()),))

    async def _append(self, whole: bytes, marks: tuple[tuple[int, float], ...]) -> None:
        position, truncated = self._position, False
        if position.size + len(whole) > self._most:
            room = max(0, self._most - position.size)
            whole = whole[: whole.rfind(b"\n", 0, room) + 1]
            whole += b"[runnerhub] log truncated: larger than %d bytes\n" % self._most
            truncated = True
        if not whole.endswith(b"\n"):
            whole += b"\n"
        masked = self._redactor.mask(whole)
        packed = await anyio.to_thread.run_sync(pack, masked) if len(masked) > IN_THREAD else pack(masked)
        lines = masked.count(b"\n")
        cursor = f"{self._skip}:{self._base}"
        chunk = LogChunk(
            attempt=self._attempt,
            first_line=position.lines + 1,
            lines=lines,
            size=len(masked),
            marks=tuple(mark for mark in marks if mark[0] < lines) or marks[:1],
            step=position.step,
            data=packed,
            cursor=cursor,
        )
        position = evolve(
            position,
            lines=position.lines + lines,
            size=position.size + len(masked),
            attempt=self._attempt,
            cursor=cursor,
            step=step_after(position.step, masked),
            truncated=truncated,
        )
        await self._store.append(self._job_id, [chunk], position)
        self._position = position
        self._signals.set(self._job_id)


def _cursor_at(cursors: list[tuple[int, str, int]], cut: int) -> tuple[str, int]:
    """The last cursor at or before the cut, and how many bytes behind it the cut is."""
    offset, cursor, skipped = max((entry for entry in cursors if entry[0] <= cut), key=lambda entry: entry[0])
    return cursor, cut - offset + skipped


async def _frames(containers: ContainerBackend, container_id: str, cursor: str) -> AsyncGenerator[LogFrame]:
    if isinstance(containers, ResumableLogs):
        async with aclosing(containers.logs_after(container_id, cursor)) as frames:  # type: ignore[type-var]
            async for frame in frames:
                yield frame
        return
    start, offset = int(cursor or 0), 0
    async with aclosing(containers.logs(container_id)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            fresh = piece[max(0, start - offset) :]
            offset += len(piece)
            if fresh:
                yield LogFrame(fresh, str(offset))


class LogLines:
    """An iterator over the lines of a job's log behind a number; there is nothing to close."""

    def __init__(
        self, store: LogStore, ledger: Ledger, signals: Signals, clock: Clock, *, job_id: str, after: int, follow: bool
    ) -> None:
        self._store, self._ledger, self._signals, self._clock = store, ledger, signals, clock
        self._job_id, self._after, self._follow = job_id, after, follow
        self._ready: deque[LogLine] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogLine:
        if not self._ready:
            await self._fill()
        line = self._ready.popleft()
        self._after = line.number
        return line

    async def _fill(self) -> None:
        """Read on; wait for more, if the job has not ended and it is to be followed."""
        while True:
            more = self._signals.get(self._job_id)
            over = not self._follow or (await self._ledger.fresh(self._job_id)).completed
            if chunks := await self._store.read(self._job_id, self._after):
                self._ready.extend(unpack_all(chunks, self._after))
                return
            if over:
                await self._ledger.fresh(self._job_id)
                raise StopAsyncIteration
            await wait_at_most(self._clock, FOLLOW_SECONDS, more)
