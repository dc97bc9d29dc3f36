"""What the writer remembers of the queue between groups of writes, and the queue's counters."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left, insort
from datetime import UTC, datetime
from typing import Any, TypeAlias

from runnerhub.model.job import QUEUES, Priority
from runnerhub.model.labels import LabelSet, from_key
from runnerhub.model.queue import QueueCounts, QueueStats

First: TypeAlias = tuple[int, float, int, str, str]
"""Level, tag, sequence (smaller goes first), job, repository."""
FIRST = (
    "select level, tag, seq, job_id, repository from queue_entries where state = 0 and lane = ?"
    " order by level, tag, seq limit 1"
)
"""The first entry of a lane."""
_QUEUE_OF = {priority.value: priority.queue for priority in Priority}


class Lanes:
    """All lanes, the first entry of each, and the shares; true as long as no other process writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.lanes: dict[tuple[str, str], int] = {}
        self.labels: dict[int, LabelSet] = {}
        self.priorities: dict[int, Priority] = {}
        for lane, labels, priority in connection.execute("select id, labels, priority from queue_lanes"):
            self.add_lane(lane, labels, priority)
        self.firsts: dict[int, First] = {}
        self.order: list[tuple[First, int]] = []
        for lane in self.labels:
            if row := connection.execute(FIRST, (lane,)).fetchone():
                self.firsts[lane] = row
        self.order = sorted((first, lane) for lane, first in self.firsts.items())
        self.virtual = dict(connection.execute("select level, virtual from queue_levels").fetchall())
        self.shares: dict[tuple[int, str], list[Any]] = {}
        counters = dict(connection.execute("select name, n from counters where name like 'queue.%'").fetchall())
        self.paused = {queue for queue in QUEUES if counters.get(f"queue.paused.{queue}")}
        self.last = counters.get("queue.sequence", 0)
        self.oldest = connection.execute("select min(since) from queue_entries where state = 0 and level > 0").fetchone()[0]
        self.due = connection.execute("select min(due) from queue_entries where state = 2").fetchone()[0]
        self.dirty_shares: set[tuple[int, str]] = set()
        self.dirty_levels: set[int] = set()
        self.lane_deltas: dict[int, int] = {}
        self.counter_deltas: dict[str, int] = {}
        self.written = self.last
        self.alive: dict[str, float] = {}

    def add_lane(self, lane: int, labels: str, priority: str) -> None:
        self.lanes[labels, priority] = lane
        self.labels[lane] = from_key(labels)
        self.priorities[lane] = Priority(priority)

    def show(self, lane: int, first: First | None) -> None:
        """The first entry of a lane is another one now."""
        before = self.firsts.pop(lane, None)
        if before is not None:
            del self.order[bisect_left(self.order, (before, lane))]
        if first is not None:
            self.firsts[lane] = first
            insort(self.order, (first, lane))

    def count(self, name: str, step: int) -> None:
        self.counter_deltas[name] = self.counter_deltas.get(name, 0) + step


def read_stats(connection: sqlite3.Connection) -> QueueStats:
    """The counters, which are kept and not counted, and the demand."""
    counters: dict[str, int] = dict(connection.execute("select name, n from counters where name like 'queue.%'").fetchall())
    waiting: dict[str, int] = {}
    demand: dict[LabelSet, int] = {}
    paused = {queue for queue in QUEUES if counters.get(f"queue.paused.{queue}")}
    for labels, priority, number in connection.execute("select labels, priority, waiting from queue_lanes where waiting > 0"):
        queue = _QUEUE_OF[priority]
        waiting[queue] = waiting.get(queue, 0) + number
        if queue not in paused:
            wanted = from_key(labels)
            demand[wanted] = demand.get(wanted, 0) + number
    due = connection.execute("select min(due) from queue_entries where state = 2").fetchone()[0]
    return QueueStats(
        queues={
            queue: QueueCounts(
                waiting=waiting.get(queue, 0),
                active=counters.get(f"queue.active.{queue}", 0),
                delayed=counters.get(f"queue.delayed.{queue}", 0),
                completed=counters.get(f"queue.completed.{queue}", 0),
                failed=counters.get(f"queue.failed.{queue}", 0),
                paused=queue in paused,
            )
            for queue in QUEUES
        },
        demand=demand,
        next_due=datetime.fromtimestamp(due, UTC) if due is not None else None,
    )
