"""Who hears of an event: everything reads the storage's one order, from wherever it left off."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Self
from weakref import WeakValueDictionary

import anyio

from runnerhub.engine.clock import wait_at_most
from runnerhub.model.event import Event, JobCompleted
from runnerhub.protocols import Clock, EventStore

RECENT = 4096
PAGE = 500


class Signals:
    """One-shot events by key; a key that nobody waits for costs nothing."""

    def __init__(self) -> None:
        self._waiting: WeakValueDictionary[str, anyio.Event] = WeakValueDictionary()

    def get(self, key: str) -> anyio.Event:
        """The event that the next `set` of this key sets."""
        event = self._waiting.get(key)
        if event is None:
            event = self._waiting[key] = anyio.Event()
        return event

    def set(self, key: str) -> None:
        """Wake all who wait for the key."""
        if event := self._waiting.pop(key, None):
            event.set()


class Bus:
    """Hands out stored events in order: those of this process at once, those of others at the next poll.

    Nothing is queued per subscriber: each reads the recent ones, or the storage when it fell behind, so that a slow one
    costs no memory and loses nothing that is kept.
    """

    def __init__(self, events: EventStore, clock: Clock, poll_interval: float) -> None:
        self._events, self._clock, self._poll = events, clock, poll_interval
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._early: dict[int, Event] = {}
        self._last = 0
        self._moved = anyio.Event()
        self._gap = anyio.Event()
        self._listeners: list[Callable[[Event], None]] = []
        self.completed = Signals()
        self.logged = Signals()

    async def open(self) -> None:
        """Begin behind what is stored already."""
        self._last = await self._events.last()

    @property
    def last(self) -> int:
        """The sequence of the last event handed out."""
        return self._last

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call a quick function of the hub's own with every event."""
        self._listeners.append(listener)

    def publish(self, event: Event) -> None:
        """Hand out an event that has been stored. Out of order or twice is fine."""
        if event.sequence <= self._last:
            return
        self._early[event.sequence] = event
        self._deliver()
        if self._early:
            self._gap.set()

    async def pump(self) -> None:
        """Fetch what other processes (or slower callers of this one) stored; run by the hub as long as it is open."""
        while True:
            await wait_at_most(self._clock, self._poll, self._gap)
            self._gap = anyio.Event()
            while found := await self._events.after(self._last, PAGE):
                for event in found:
                    self._hand_out(event)
                for sequence in [number for number in self._early if number <= self._last]:
                    del self._early[sequence]
                self._deliver()

    def subscribe(self, since: int) -> Subscription:
        """All events behind a sequence, then new ones as they come."""
        return Subscription(self, since)

    async def next(self, since: int) -> list[Event]:
        """Some events behind a sequence; waits until there are any."""
        while True:
            moved = self._moved
            if since >= self._last:
                await moved.wait()
            elif found := await self._between(since):
                return found
            else:  # pruned meanwhile
                since = self._last

    async def _between(self, since: int) -> list[Event]:
        if self._recent and self._recent[0].sequence <= since + 1:
            return [event for event in self._recent if event.sequence > since]
        return await self._events.after(since, PAGE) or [event for event in self._recent if event.sequence > since]

    def _deliver(self) -> None:
        while event := self._early.pop(self._last + 1, None):
            self._hand_out(event)

    def _hand_out(self, event: Event) -> None:
        if event.sequence <= self._last:
            return
        self._last = event.sequence
        self._recent.append(event)
        if isinstance(event, JobCompleted) and event.job_id:
            self.completed.set(event.job_id)
            self.logged.set(event.job_id)
        for listener in self._listeners:
            listener(event)
        moved, self._moved = self._moved, anyio.Event()
        moved.set()


class Subscription:
    """An iterator over events without end; there is nothing to close."""

    def __init__(self, bus: Bus, since: int) -> None:
        self._bus, self._since = bus, since
        self._ready: deque[Event] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not self._ready:
            self._ready.extend(await self._bus.next(self._since))
        event = self._ready.popleft()
        self._since = event.sequence
        return event
