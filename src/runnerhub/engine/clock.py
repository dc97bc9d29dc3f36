"""The system's clock, and waiting on whatever clock the hub was given."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio

from runnerhub.protocols import Clock


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time of day, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


@asynccontextmanager
async def deadline(clock: Clock, seconds: float) -> AsyncIterator[anyio.CancelScope]:
    """Cancel the body after so many seconds of the clock; `scope.cancelled_caught` tells afterwards."""
    if isinstance(clock, SystemClock):
        with anyio.move_on_after(seconds) as scope:
            yield scope
        return

    async def expire() -> None:
        await clock.sleep(seconds)
        scope.cancel()

    failed: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(expire, name="deadline")
        with anyio.CancelScope() as scope:
            try:
                yield scope
            except Exception as error:  # noqa: BLE001  (raised below: the group would wrap it)
                failed = error
        tasks.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def wait_at_most(clock: Clock, seconds: float, event: anyio.Event) -> bool:
    """Wait for an event, but no longer than this. Returns whether it came."""
    if not event.is_set():
        async with deadline(clock, seconds):
            await event.wait()
    return event.is_set()
