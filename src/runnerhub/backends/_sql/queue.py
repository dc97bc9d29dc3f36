"""The queue in the database: the order of waiting jobs as index keys, claims that look at one lane.

A *lane* is a label set and a priority. What orders the entries of a lane is stored with them (level, tag, sequence: see
`runnerhub.model.waiting`), so that the first of a lane is the first of its index.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runnerhub.backends._sql.database import Database
from runnerhub.backends._sql.lanes import FIRST, First, Lanes, read_stats
from runnerhub.model.change import Ack
from runnerhub.model.config import BackendOptions
from runnerhub.model.errors import NotFoundError
from runnerhub.model.job import QUEUES
from runnerhub.model.labels import key
from runnerhub.model.queue import Control, Lease, Outcome, QueueEntry, QueueStats, Wanted

WAITING, DELAYED = 0, 2
FAILED_KEPT = 10_000
PROMOTED_AT_ONCE = 1000
_NEVER = float("inf")


class SQLQueue:
    """A `QueueBackend`; `SQLStorage.queue()` makes it."""

    def __init__(self, database: Database, options: BackendOptions) -> None:
        self._database, self._options = database, options
        self._ageing = options.ageing.total_seconds()
        self._lanes: Lanes | None = None
        self._version = -1
        self._boot = _boot()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The storage closes the database."""

    # -------------------------------------------------------------------------------------------------- verbs

    async def put(self, entries: Sequence[QueueEntry]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for entry in entries:
                self.enter(connection, entry)

        await self._database.write(work)

    async def lease(self, n: int, wanted: Wanted, owner: str, ttl: timedelta) -> list[Lease]:
        def work(connection: sqlite3.Connection) -> list[Lease]:
            self._live(connection, owner, ttl)
            self._tick(connection)
            return self._take(connection, n, wanted, owner)

        return await self._database.write(work)

    async def extend(self, owner: str, ttl: timedelta) -> frozenset[str]:
        def work(connection: sqlite3.Connection) -> frozenset[str]:
            self._live(connection, owner, ttl)
            sql = "select job_id from queue_entries where state = 1 and owner = ?"
            return frozenset(job_id for (job_id,) in connection.execute(sql, (owner,)))

        return await self._database.write(work)

    async def ack(self, acks: Sequence[Ack]) -> list[bool]:
        return await self._database.write(lambda connection: [self.end(connection, ack) for ack in acks])

    async def nack(self, lease: Lease, *, delay: timedelta | None = None, dead: bool = False) -> bool:
        return await self._database.write(lambda connection: self._nack(connection, lease, delay, dead=dead))

    async def reap(self, owner: str, ttl: timedelta, previous: frozenset[str] = frozenset()) -> list[Lease]:
        def work(connection: sqlite3.Connection) -> list[Lease]:
            dead = self._dead(connection, owner) | previous
            self._live(connection, owner, ttl)
            return [lease for name in sorted(dead) for lease in self._take_over(connection, name, owner)]

        return await self._database.write(work)

    async def stats(self) -> QueueStats:
        memory = self._lanes
        now = self._options.now().timestamp()
        if memory is None or min(memory.due or _NEVER, (memory.oldest or _NEVER) + self._ageing) <= now:
            await self._database.write(self._tick)
        return await self._database.read(read_stats)

    async def control(self, queue: str, action: Control) -> list[str]:
        if queue not in QUEUES:
            raise NotFoundError("queue", queue)
        return await self._database.write(lambda connection: self._control(connection, queue, action))

    # ---------------------------------------------------------------------- within somebody's group of changes

    def enter(self, connection: sqlite3.Connection, entry: QueueEntry) -> None:
        """Put one entry, unless its job waits or is leased."""
        memory = self._of(connection)
        labels, priority = key(entry.labels), entry.priority.value
        lane = memory.lanes.get((labels, priority))
        if lane is None:
            lane = connection.execute(
                "insert into queue_lanes (labels, priority, waiting) values (?, ?, 0)", (labels, priority)
            ).lastrowid
            assert lane is not None  # noqa: S101  (an insert has a row)
            memory.add_lane(lane, labels, priority)
        due = entry.not_before.timestamp() if entry.not_before else None
        delayed = due is not None and due > self._options.now().timestamp()
        memory.last += 1
        row = (
            entry.job_id,
            DELAYED if delayed else WAITING,
            lane,
            entry.priority.level,
            0.0 if delayed else self._next_tag(connection, entry.priority.level, entry.repository, entry.weight),
            memory.last,
            entry.repository,
            entry.weight,
            entry.enqueued_at.timestamp(),
            due if delayed else None,
        )
        sql = (
            "insert or ignore into queue_entries (job_id, state, lane, level, tag, seq, repository, weight, since, due)"
            " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        if not connection.execute(sql, row).rowcount:
            return
        if delayed:
            self._delayed(memory, lane, due or 0.0)
        else:
            self._shown(connection, lane, (row[3], row[4], row[5], entry.job_id, entry.repository), row[8])

    def end(self, connection: sqlite3.Connection, ack: Ack) -> bool:
        """End one lease for good, if it is the live one."""
        lease = ack.lease
        sql = "delete from queue_entries where job_id = ? and state = 1 and owner = ? and token = ?"
        if not connection.execute(sql, (lease.job_id, lease.owner, lease.token)).rowcount:
            return False
        memory, queue = self._of(connection), lease.priority.queue
        memory.count(f"queue.active.{queue}", -1)
        if ack.outcome is Outcome.FAILED:
            self._fail(connection, lease)
        else:
            memory.count(f"queue.completed.{queue}", 1)
        return True

    def withdraw(self, connection: sqlite3.Connection, job_id: str) -> None:
        """Take an entry out; its job is over. One that is leased is left to its owner."""
        sql = "select state, lane, level, repository from queue_entries where job_id = ? and state <> 1"
        row = connection.execute(sql, (job_id,)).fetchone()
        if row is None:
            return
        connection.execute("delete from queue_entries where job_id = ?", (job_id,))
        state, lane, level, repository = row
        memory = self._of(connection)
        if state == DELAYED:
            memory.count(f"queue.delayed.{memory.priorities[lane].queue}", -1)
        else:
            self._gone(connection, lane, level, repository)
            self._look(connection, lane)

    def refresh(self, connection: sqlite3.Connection) -> None:
        """A group begins: forget what another process may have changed."""
        version = connection.execute("pragma data_version").fetchone()[0]
        if version != self._version:
            self._version, self._lanes = version, None

    def flush(self, connection: sqlite3.Connection) -> None:
        """A group ends: write what was kept in memory."""
        memory = self._lanes
        if memory is None:
            return
        empty = [at for at in memory.dirty_shares if not memory.shares[at][1]]
        for at in empty:
            del memory.shares[at]
        connection.executemany("delete from queue_shares where level = ? and repository = ?", empty)
        connection.executemany(
            "insert or replace into queue_shares values (?, ?, ?, ?)",
            [(*at, *memory.shares[at]) for at in memory.dirty_shares if at in memory.shares],
        )
        for level in memory.dirty_levels:
            connection.execute("insert or replace into queue_levels values (?, ?)", (level, memory.virtual[level]))
        if memory.lane_deltas:
            connection.executemany(
                "update queue_lanes set waiting = waiting + ? where id = ?",
                [(step, lane) for lane, step in memory.lane_deltas.items() if step],
            )
        if memory.last != memory.written:
            memory.count("queue.sequence", memory.last - memory.written)
            memory.written = memory.last
        if memory.counter_deltas:
            connection.executemany(
                "insert into counters values (?, ?) on conflict (name) do update set n = n + excluded.n",
                [item for item in memory.counter_deltas.items() if item[1]],
            )
        memory.dirty_shares.clear()
        memory.dirty_levels.clear()
        memory.lane_deltas.clear()
        memory.counter_deltas.clear()

    def forget(self) -> None:
        """A group was rolled back."""
        self._lanes = None

    # ------------------------------------------------------------------------------------------------- claims

    def _take(self, connection: sqlite3.Connection, n: int, wanted: Wanted, owner: str) -> list[Lease]:
        memory, leases = self._of(connection), list[Lease]()
        while len(leases) < n and (found := self._best(connection, memory, wanted)):
            lane, (level, tag, _, job_id, repository) = found
            token = memory.last = memory.last + 1
            connection.execute(
                "update queue_entries set state = 1, owner = ?, token = ? where job_id = ?", (owner, token, job_id)
            )
            if tag > memory.virtual.get(level, 0.0):
                memory.virtual[level] = tag
                memory.dirty_levels.add(level)
            self._gone(connection, lane, level, repository)
            self._look(connection, lane)
            priority = memory.priorities[lane]
            memory.count(f"queue.active.{priority.queue}", 1)
            leases.append(
                Lease(
                    job_id=job_id,
                    repository=repository,
                    labels=memory.labels[lane],
                    priority=priority,
                    owner=owner,
                    token=token,
                )
            )
        return leases

    def _best(self, connection: sqlite3.Connection, memory: Lanes, wanted: Wanted) -> tuple[int, First] | None:
        restricted = bool(wanted.exclude or wanted.only)
        best: tuple[int, First] | None = None
        for first, lane in memory.order:
            if best is not None and first >= best[1]:
                break
            if memory.priorities[lane].queue in memory.paused or not memory.labels[lane] <= wanted.labels:
                continue
            row: First | None = first
            if restricted and not wanted.takes(first[4]):
                row = self._first_allowed(connection, lane, wanted)
            if row is not None and (best is None or row < best[1]):
                best = lane, row
        return best

    @staticmethod
    def _first_allowed(connection: sqlite3.Connection, lane: int, wanted: Wanted) -> First | None:
        conditions, values = ["state = 0", "lane = ?"], [lane, *sorted(wanted.exclude)]
        if wanted.exclude:
            conditions.append(f"repository not in ({', '.join('?' * len(wanted.exclude))})")
        if wanted.only:
            named = [name for name in sorted(wanted.only) if not name.endswith("/*")]
            owners = [name[:-1] + "%" for name in sorted(wanted.only) if name.endswith("/*")]
            allowed = ["repository = ?"] * len(named) + ["repository like ?"] * len(owners)
            conditions.append(f"({' or '.join(allowed)})")
            values += [*named, *owners]
        sql = (
            "select level, tag, seq, job_id, repository from queue_entries where "
            f"{' and '.join(conditions)} order by level, tag, seq limit 1"
        )
        found: First | None = connection.execute(sql, values).fetchone()
        return found

    def _nack(self, connection: sqlite3.Connection, lease: Lease, delay: timedelta | None, *, dead: bool) -> bool:
        sql = (
            "select lane, level, tag, seq, repository, since from queue_entries"
            " where job_id = ? and state = 1 and owner = ? and token = ?"
        )
        row = connection.execute(sql, (lease.job_id, lease.owner, lease.token)).fetchone()
        if row is None:
            return False
        lane, level, tag, seq, repository, since = row
        memory = self._of(connection)
        memory.count(f"queue.active.{lease.priority.queue}", -1)
        if dead:
            connection.execute("delete from queue_entries where job_id = ?", (lease.job_id,))
            self._fail(connection, lease)
        elif delay:
            due = self._options.now().timestamp() + delay.total_seconds()
            connection.execute("update queue_entries set state = 2, due = ? where job_id = ?", (due, lease.job_id))
            self._delayed(memory, lane, due)
        else:
            connection.execute("update queue_entries set state = 0 where job_id = ?", (lease.job_id,))
            self._shown(connection, lane, (level, tag, seq, lease.job_id, repository), since)
        return True

    def _take_over(self, connection: sqlite3.Connection, name: str, owner: str) -> list[Lease]:
        memory, leases = self._of(connection), list[Lease]()
        sql = "select job_id, lane, repository from queue_entries where state = 1 and owner = ?"
        for job_id, lane, repository in connection.execute(sql, (name,)).fetchall():
            token = memory.last = memory.last + 1
            connection.execute("update queue_entries set owner = ?, token = ? where job_id = ?", (owner, token, job_id))
            leases.append(
                Lease(
                    job_id=job_id,
                    repository=repository,
                    labels=memory.labels[lane],
                    priority=memory.priorities[lane],
                    owner=owner,
                    token=token,
                    taken_over=True,
                )
            )
        if name != owner:
            connection.execute("delete from queue_owners where name = ?", (name,))
            memory.alive.pop(name, None)
        return leases

    # -------------------------------------------------------------------------------------------------- order

    def _tick(self, connection: sqlite3.Connection) -> None:
        """Let in what is due, and move up what has aged."""
        memory, now = self._of(connection), self._options.now().timestamp()
        if memory.due is not None and memory.due <= now:
            sql = (
                "select job_id, lane, repository, weight, due from queue_entries"
                " where state = 2 and due <= ? order by due limit ?"
            )
            for job_id, lane, repository, weight, due in connection.execute(sql, (now, PROMOTED_AT_ONCE)).fetchall():
                priority = memory.priorities[lane]
                memory.count(f"queue.delayed.{priority.queue}", -1)
                self._rank(connection, job_id, lane, priority.level, repository, weight, due)
            memory.due = connection.execute("select min(due) from queue_entries where state = 2").fetchone()[0]
        if memory.oldest is not None and memory.oldest + self._ageing <= now:
            sql = (
                "select job_id, lane, level, repository, weight, since from queue_entries"
                " where state = 0 and level > 0 and since <= ? order by since limit ?"
            )
            aged = connection.execute(sql, (now - self._ageing, PROMOTED_AT_ONCE)).fetchall()
            for job_id, lane, level, repository, weight, since in aged:
                self._gone(connection, lane, level, repository)
                self._rank(connection, job_id, lane, level - 1, repository, weight, since + self._ageing)
            for lane in {row[1] for row in aged}:
                self._look(connection, lane)
            sql = "select min(since) from queue_entries where state = 0 and level > 0"
            memory.oldest = connection.execute(sql).fetchone()[0]

    def _rank(
        self, connection: sqlite3.Connection, job_id: str, lane: int, level: int, repository: str, weight: float, since: float
    ) -> None:
        """Put an entry at the end of its repository's share in a level."""
        memory = self._of(connection)
        memory.last += 1
        tag = self._next_tag(connection, level, repository, weight)
        connection.execute(
            "update queue_entries set state = 0, level = ?, tag = ?, seq = ?, since = ?, due = null where job_id = ?",
            (level, tag, memory.last, since, job_id),
        )
        self._shown(connection, lane, (level, tag, memory.last, job_id, repository), since)

    def _next_tag(self, connection: sqlite3.Connection, level: int, repository: str, weight: float) -> float:
        share = self._share(connection, level, repository)
        return float(max(self._of(connection).virtual.get(level, 0.0), share[0]) + 1 / weight)

    def _share(self, connection: sqlite3.Connection, level: int, repository: str) -> list[Any]:
        memory, at = self._of(connection), (level, repository)
        share = memory.shares.get(at)
        if share is None:
            sql = "select tag, waiting from queue_shares where level = ? and repository = ?"
            share = memory.shares[at] = list(connection.execute(sql, at).fetchone() or (0.0, 0))
        return share

    def _shown(self, connection: sqlite3.Connection, lane: int, entry: First, since: float) -> None:
        """An entry waits now: count it in its share and its lane, and see whether it is the first there."""
        memory, (level, tag, _, _, repository) = self._of(connection), entry
        share = self._share(connection, level, repository)
        share[0], share[1] = max(share[0], tag), share[1] + 1
        memory.dirty_shares.add((level, repository))
        memory.lane_deltas[lane] = memory.lane_deltas.get(lane, 0) + 1
        if level and (memory.oldest is None or since < memory.oldest):
            memory.oldest = since
        first = memory.firsts.get(lane)
        if first is None or entry < first:
            memory.show(lane, entry)

    def _gone(self, connection: sqlite3.Connection, lane: int, level: int, repository: str) -> None:
        """An entry waits no more. A share that nobody waits in is forgotten when the group ends."""
        memory = self._of(connection)
        self._share(connection, level, repository)[1] -= 1
        memory.dirty_shares.add((level, repository))
        memory.lane_deltas[lane] = memory.lane_deltas.get(lane, 0) - 1

    def _look(self, connection: sqlite3.Connection, lane: int) -> None:
        self._of(connection).show(lane, connection.execute(FIRST, (lane,)).fetchone())

    # ------------------------------------------------------------------------------------------------- others

    def _of(self, connection: sqlite3.Connection) -> Lanes:
        if self._lanes is None:
            self._lanes = Lanes(connection)
        return self._lanes

    def _live(self, connection: sqlite3.Connection, owner: str, ttl: timedelta) -> None:
        """The owner lives that long; written when it makes a difference of a quarter."""
        until, alive = self._options.monotonic() + ttl.total_seconds(), self._of(connection).alive
        if not until - ttl.total_seconds() / 4 < alive.get(owner, 0.0) <= until:
            connection.execute("insert or replace into queue_owners values (?, ?, ?)", (owner, until, self._boot))
            alive[owner] = until

    def _dead(self, connection: sqlite3.Connection, owner: str) -> frozenset[str]:
        sql = "select name from queue_owners where name <> ? and (boot <> ? or until <= ?)"
        rows = connection.execute(sql, (owner, self._boot, self._options.monotonic()))
        return frozenset(name for (name,) in rows)

    @staticmethod
    def _delayed(memory: Lanes, lane: int, due: float) -> None:
        memory.count(f"queue.delayed.{memory.priorities[lane].queue}", 1)
        memory.due = due if memory.due is None else min(memory.due, due)

    def _fail(self, connection: sqlite3.Connection, lease: Lease) -> None:
        queue = lease.priority.queue
        self._of(connection).count(f"queue.failed.{queue}", 1)
        connection.execute("insert into queue_failed (queue, job_id) values (?, ?)", (queue, lease.job_id))
        connection.execute("delete from queue_failed where id <= (select max(id) from queue_failed) - ?", (FAILED_KEPT,))

    def _control(self, connection: sqlite3.Connection, queue: str, action: Control) -> list[str]:
        memory = self._of(connection)
        if action in (Control.PAUSE, Control.RESUME):
            pause = action is Control.PAUSE
            (memory.paused.add if pause else memory.paused.discard)(queue)
            connection.execute("insert or replace into counters values (?, ?)", (f"queue.paused.{queue}", int(pause)))
            return []
        rows = connection.execute("select job_id from queue_failed where queue = ? order by id", (queue,)).fetchall()
        if action is Control.CLEAR_FAILED:
            connection.execute("delete from queue_failed where queue = ?", (queue,))
            connection.execute("delete from counters where name = ?", (f"queue.failed.{queue}",))
            memory.counter_deltas.pop(f"queue.failed.{queue}", None)
        return [job_id for (job_id,) in rows]


def _boot() -> str:
    """What tells this life of the machine from others: monotonic clocks of different lives do not compare."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(round((time.time() - time.monotonic()) / 60))
