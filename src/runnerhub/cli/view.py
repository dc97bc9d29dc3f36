"""What a run shows while it goes on: a live view on a terminal, plain lines in a pipe, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import define

from runnerhub.cli.common import shown
from runnerhub.cli.jobsfile import Step
from runnerhub.cli.render import COLOURS, duration, job_row, plain_event, seconds, state, table
from runnerhub.model.event import Event
from runnerhub.model.job import Job
from runnerhub.model.log import LogLine

_PALETTE = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")
_MOST_BUFFERED = 10_000
_HEAD = ("job", "result", "exit code", "time", "message")


@define(eq=False)
class Progress:
    """How far one step is. `skipped` says why it never became a job."""

    step: Step
    job: Job | None = None
    skipped: str = ""
    began: float | None = None

    @property
    def word(self) -> str:
        """One word for where it stands."""
        if self.skipped:
            return "skipped"
        return state(self.job) if self.job else "waiting"

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of the summary."""
        if self.job is None:
            return (self.step.name, self.word, "-", "-", self.skipped)
        code = "-" if self.job.exit_code is None else str(self.job.exit_code)
        return (self.step.name, self.word, code, duration(self.job), self.job.message)


class View:
    """Plain lines: each with its job's name, when there is more than one.

    They are written in a thread, so that a slow reader of the pipe never holds up the hub; when it is gone, `gone` is set.
    """

    def __init__(self, steps: Sequence[Progress]) -> None:
        self.steps = steps
        self.gone = anyio.Event()
        self._width = max(len(progress.step.name) for progress in steps)
        self._buffer: list[str] = []
        self._more, self._room, self._writing = anyio.Event(), anyio.Event(), anyio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put back."""

    async def write(self) -> None:
        """Write what comes; run as long as the view is shown."""
        while True:
            await self._more.wait()
            self._more = anyio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Write what has come so far."""
        async with self._writing:
            lines, self._buffer = self._buffer, []
            self._room.set()
            if lines and not self.gone.is_set():
                try:
                    await anyio.to_thread.run_sync(_write, "".join(lines))
                except BrokenPipeError:
                    self.gone.set()

    async def put(self, line: str) -> None:
        """Have a line written soon."""
        while len(self._buffer) >= _MOST_BUFFERED and not self.gone.is_set():
            self._room = anyio.Event()
            await self._room.wait()
        self._buffer.append(f"{line}\n")
        self._more.set()

    async def line(self, progress: Progress, line: LogLine) -> None:
        """A line of a job's log."""
        text = shown(line.text, colour=False)
        await self.put(text if len(self.steps) == 1 else f"{progress.step.name:<{self._width}} | {text}")

    async def event(self, event: Event) -> None:
        """Something happened."""

    async def changed(self, progress: Progress) -> None:
        """A step is further."""
        if len(self.steps) > 1:
            message = progress.row[-1]
            await self.put(f"{progress.step.name:<{self._width}} * {progress.word}{f': {message}' if message else ''}")

    async def summary(self) -> None:
        """How it all ended."""
        await self.flush()
        if not self.gone.is_set():
            try:
                table(_HEAD, [progress.row for progress in self.steps], coloured=1)
                sys.stdout.flush()
            except BrokenPipeError:
                self.gone.set()


class JSONView(View):
    """One JSON object per line: events, lines of logs, and at the end a summary of each job."""

    async def line(self, progress: Progress, line: LogLine) -> None:
        """A line of a job's log."""
        job_id = progress.job.id if progress.job else None
        await self._object("log", job=progress.step.name, job_id=job_id, **plain_event(line))

    async def event(self, event: Event) -> None:
        """Something happened."""
        await self._object("event", event=event.kind, **plain_event(event))

    async def changed(self, progress: Progress) -> None:
        """Events tell it."""

    async def summary(self) -> None:
        """The end of each step, and of the run."""
        for progress in self.steps:
            name, result, _, _, message = progress.row
            row = job_row(progress.job) if progress.job else None
            await self._object("job", name=name, result=result, message=message, job=row)
        results = [progress.word for progress in self.steps]
        counts = {word: results.count(word) for word in sorted(set(results))}
        await self._object("summary", results=counts)
        await self.flush()

    async def _object(self, kind: str, **fields: Any) -> None:
        await self.put(json.dumps({"type": kind, **fields}))


class LiveView(View):
    """On a terminal: the logs scroll by, and below them stands one line per job."""

    def __init__(self, steps: Sequence[Progress]) -> None:
        super().__init__(steps)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(no_color="NO_COLOR" in os.environ, highlight=False)
        self._live = Live(get_renderable=self._status, console=self._console, refresh_per_second=4, transient=True)

    async def __aenter__(self) -> Self:
        self._live.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""
        self._live.stop()

    async def line(self, progress: Progress, line: LogLine) -> None:
        """A line of a job's log, under its name in its colour."""
        from rich.text import Text

        text = Text.from_ansi(shown(line.text, colour=True))
        if len(self.steps) > 1:
            colour = _PALETTE[list(self.steps).index(progress) % len(_PALETTE)]
            text = Text(f"{progress.step.name:<{self._width}} ", style=colour) + text
        self._console.print(text)
        await anyio.lowlevel.checkpoint()

    async def changed(self, progress: Progress) -> None:
        """The line of the step tells it."""

    async def summary(self) -> None:
        """How it all ended."""
        self._live.stop()
        await super().summary()

    def _status(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for progress in self.steps:
            word = progress.word
            elapsed = duration(progress.job) if progress.job and progress.job.completed else ""
            if progress.began is not None and not elapsed:
                elapsed = seconds(time.monotonic() - progress.began)
            grid.add_row(progress.step.name, Text(word, style=COLOURS.get(word, "cyan")), elapsed)
        return grid


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def view_for(steps: Sequence[Progress], *, as_json: bool) -> View:
    """The view that fits where the output goes."""
    if as_json:
        return JSONView(steps)
    return LiveView(steps) if sys.stdout.isatty() else View(steps)
