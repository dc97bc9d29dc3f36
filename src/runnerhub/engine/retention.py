"""Old jobs, logs and events go after their time, a few at once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from runnerhub.model.config import HubConfig
from runnerhub.model.errors import RunnerHubError
from runnerhub.protocols import Clock, StorageBackend

_log = logging.getLogger("runnerhub.retention")
INTERVAL = timedelta(hours=1)
BATCH = 200


class Retention:
    """Prunes the storage; safe to run in several hubs at once."""

    def __init__(self, config: HubConfig, storage: StorageBackend, clock: Clock) -> None:
        self._config, self._storage, self._clock = config, storage, clock

    async def run(self) -> None:
        """Prune every hour; run by the hub as long as it is open."""
        while True:
            try:
                await self.prune()
            except RunnerHubError as error:
                _log.warning("nothing can be pruned now: %s", error)
            await self._clock.sleep(INTERVAL.total_seconds())

    async def prune(self) -> None:
        """Delete everything that is too old now."""
        now, storage = self._clock.now(), self._storage
        await self._all(storage.jobs.prune, now - self._config.keep_jobs)
        await self._all(storage.logs.prune, now - self._config.keep_logs)
        await self._all(storage.events.prune, now - self._config.keep_events)

    async def _all(self, prune: Callable[[datetime, int], Awaitable[int]], before: datetime) -> None:
        while await prune(before, BATCH) >= BATCH:
            await self._clock.sleep(0)
