"""Logs: lines, and the compressed chunks that they are kept in.

A chunk holds whole lines. Time is kept per read, not per line: `marks` says from which line on which moment holds, so
that storing costs nothing per line and reading still gives every line its time, level and step.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from attrs import frozen

LONGEST_LINE = 64 * 1024


class Level(StrEnum):
    """How serious a line says it is, by GitHub's workflow commands (`::error::`, `##[warning]`)."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen
class LogLine:
    """A line of a job's log. `number` counts from 1 over all attempts and is the cursor of a follower."""

    number: int
    at: datetime
    level: Level
    step: str | None
    text: str
    attempt: int = 1


@frozen
class LogChunk:
    """Whole lines of one attempt, compressed. `cursor` is the container's own cursor behind the last of them."""

    attempt: int
    first_line: int
    lines: int
    size: int
    marks: tuple[tuple[int, float], ...]
    step: str | None
    data: bytes
    cursor: str

    @property
    def last_line(self) -> int:
        """The number of its last line."""
        return self.first_line + self.lines - 1


@frozen
class LogPosition:
    """Where the log of a job ends: lines and bytes stored in all, and where to go on in the container."""

    lines: int = 0
    size: int = 0
    attempt: int = 0
    cursor: str = ""
    step: str | None = None
    truncated: bool = False


_LEVEL = re.compile(rb"(?:::|##\[)(error|warning|debug)\b")
_STEP = re.compile(rb"^(?:::group::|##\[group\])(.*)$", re.MULTILINE)
_END = re.compile(rb"^(?:::endgroup::|##\[endgroup\])", re.MULTILINE)


def pack(data: bytes, *, level: int = 1) -> bytes:
    """Compressed text of whole lines (zlib: releases the interpreter's lock, so run it in a thread)."""
    return zlib.compress(data, level)


def step_after(step: str | None, data: bytes) -> str | None:
    """The step that holds behind `data` when `step` held before it."""
    if b"group" not in data:
        return step
    last_end = max((match.start() for match in _END.finditer(data)), default=-1)
    names = list(_STEP.finditer(data))
    if names and names[-1].start() > last_end:
        return names[-1].group(1).decode("utf-8", "replace").strip()[:256] or None
    return None if last_end >= 0 else step


def unpack(chunk: LogChunk, after: int = 0) -> Iterator[LogLine]:
    """The chunk's lines with a number above `after`."""
    marks = [*chunk.marks]
    at = datetime.fromtimestamp(marks[0][1], UTC) if marks else datetime.fromtimestamp(0, UTC)
    step, position = chunk.step, 0
    for index, raw in enumerate(zlib.decompress(chunk.data).split(b"\n")[: chunk.lines]):
        while position < len(marks) and marks[position][0] <= index:
            at = datetime.fromtimestamp(marks[position][1], UTC)
            position += 1
        level = Level.INFO
        if raw[:2] in (b"::", b"##"):
            if match := _LEVEL.match(raw):
                level = Level(match.group(1).decode())
            elif match := _STEP.match(raw):
                step = match.group(1).decode("utf-8", "replace").strip()[:256] or None
            elif _END.match(raw):
                step = None
        number = chunk.first_line + index
        if number > after:
            yield LogLine(number, at, level, step, raw.rstrip(b"\r").decode("utf-8", "replace"), chunk.attempt)


def unpack_all(chunks: Sequence[LogChunk], after: int = 0) -> list[LogLine]:
    """The lines of several chunks with a number above `after`."""
    return [line for chunk in chunks for line in unpack(chunk, after)]
