"""Ids: a prefix that says what it is, then a part that sorts by time, then chance."""

from __future__ import annotations

from datetime import datetime
from random import Random

PREFIXES = ("job", "runner", "container", "del", "scan", "req", "hub")


class Ids:
    """Makes ids such as `job_018c2f0a7b3c00014f6d2a9e1b`. Sortable by time, then by the order of making."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._last = 0
        self._count = 0

    def new(self, prefix: str, now: datetime) -> str:
        """A new id. `now` orders it; ids of one millisecond keep the order of the calls."""
        moment = int(now.timestamp() * 1000)
        if moment > self._last:
            self._last, self._count = moment, 0
        else:
            self._count += 1
        return f"{prefix}_{self._last:011x}{self._count:04x}{self._random.getrandbits(44):011x}"
