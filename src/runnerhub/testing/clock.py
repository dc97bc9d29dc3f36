"""A clock that moves when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

import anyio
import anyio.lowlevel


class FakeClock:
    """A `Clock` of virtual time, on asyncio and trio. `sleep` waits until somebody calls `advance`."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start, self._elapsed = start, 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._count = 0

    def now(self) -> datetime:
        """The time of day of the fake world."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Seconds since its beginning."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced so far."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        self._count += 1
        wake = anyio.Event()
        heappush(self._sleepers, (self._elapsed + seconds, self._count, wake))
        await wake.wait()

    async def advance(self, seconds: float = 0.0) -> None:
        """Let time pass: sleepers wake in order, and each has its say before time goes on."""
        until = self._elapsed + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self._elapsed, _, wake = heappop(self._sleepers)
            wake.set()
            await self.settle()
        self._elapsed = until
        await self.settle()

    async def settle(self, rounds: int = 20) -> None:
        """Let everybody who can run do so."""
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
