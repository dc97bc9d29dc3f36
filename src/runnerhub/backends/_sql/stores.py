"""Jobs, runners, events, logs and settings in the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from runnerhub.backends._sql import schema
from runnerhub.backends._sql.codec import (
    dumps,
    event_of,
    job_of,
    mapping_of,
    request_text,
    runner_of,
    runner_text,
    stamp,
    state_text,
)
from runnerhub.backends._sql.database import Database
from runnerhub.backends._sql.queue import SQLQueue
from runnerhub.model.change import JobChange
from runnerhub.model.errors import ConflictError
from runnerhub.model.event import Event
from runnerhub.model.job import Job, JobPage, JobQuery
from runnerhub.model.log import LogChunk, LogPosition
from runnerhub.model.runner import Runner

_INSERT_EVENT = "insert into events (at, kind, job_id, runner_id, repository, data) values (?, ?, ?, ?, ?, ?)"
_EVENT = "sequence, at, kind, job_id, runner_id, repository, data"
_COUNT = "insert into counters values (?, ?) on conflict (name) do update set n = n + excluded.n"


def store_event(connection: sqlite3.Connection, event: Event) -> Event:
    """Append an event to the one order."""
    row = (stamp(event.at), event.kind, event.job_id, event.runner_id, event.repository, dumps(event.data))
    return event.numbered(connection.execute(_INSERT_EVENT, row).lastrowid or 0)


class Jobs:
    """Jobs, their counters kept beside them."""

    def __init__(self, database: Database, queue: SQLQueue) -> None:
        self._database, self._queue = database, queue
        self._deltas: dict[str, int] = {}

    async def save(self, changes: Sequence[JobChange]) -> list[Event | None]:
        return await self._database.write(lambda connection: [self._save(connection, one) for one in changes])

    async def get(self, job_id: str) -> Job | None:
        sql = "select request, state from jobs where id = ?"
        row = await self._database.read(lambda connection: connection.execute(sql, (job_id,)).fetchone())
        return job_of(*row) if row else None

    async def find(self, repository: str, github_job_id: int) -> Job | None:
        sql = "select request, state from jobs where repository = ? and github_job_id = ?"
        key = (repository, github_job_id)
        row = await self._database.read(lambda connection: connection.execute(sql, key).fetchone())
        return job_of(*row) if row else None

    async def list(self, query: JobQuery) -> JobPage:
        return await self._database.read(lambda _: self._list(query))

    async def counts(self) -> Mapping[str, int]:
        sql = "select name, n from counters where n > 0 and name not like 'queue.%'"
        return dict(await self._database.read(lambda connection: connection.execute(sql).fetchall()))

    async def prune(self, before: datetime, limit: int) -> int:
        return await self._database.write(lambda connection: self._prune(connection, before.timestamp(), limit))

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write what the group of changes did to the counters."""
        if self._deltas:
            connection.executemany(_COUNT, [item for item in self._deltas.items() if item[1]])
            self._deltas = {}

    def forget(self) -> None:
        """The group was rolled back."""
        self._deltas = {}

    def _save(self, connection: sqlite3.Connection, change: JobChange) -> Event | None:
        job = change.job
        before = None
        if job.version:
            before = connection.execute("select version, status, conclusion from jobs where id = ?", (job.id,)).fetchone()
            if before is None or before[0] != job.version - 1:
                return None
        elif self._exists(connection, job):
            return None
        if change.runner is not None:
            check_name(connection, change.runner)
        if change.ack is not None and not self._queue.end(connection, change.ack):
            return None
        if before is None:
            self._insert(connection, job)
        else:
            self._update(connection, job)
            self._count(before[1], before[2], -1)
        self._count(job.status.value, job.conclusion and job.conclusion.value, 1)
        if change.put is not None:
            self._queue.enter(connection, change.put)
        if change.withdraw:
            self._queue.withdraw(connection, job.id)
        if change.runner is not None:
            write_runner(connection, change.runner)
        if change.remove_runner is not None:
            connection.execute("delete from runners where id = ?", (change.remove_runner,))
        return store_event(connection, change.event)

    @staticmethod
    def _exists(connection: sqlite3.Connection, job: Job) -> bool:
        sql = "select 1 from jobs where id = ? union all select 1 from jobs where repository = ? and github_job_id = ?"
        return connection.execute(sql, (job.id, job.repository, job.request.github_job_id)).fetchone() is not None

    @staticmethod
    def _insert(connection: sqlite3.Connection, job: Job) -> None:
        connection.execute(
            "insert into jobs (id, repository, github_job_id, status, conclusion, active, runner_id, created_at, updated_at,"
            " completed_at, version, request, state) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                job.id,
                job.repository,
                job.request.github_job_id,
                job.status.value,
                job.conclusion and job.conclusion.value,
                job.active,
                job.runner_id,
                stamp(job.created_at),
                stamp(job.updated_at),
                stamp(job.completed_at),
                job.version,
                request_text(job.request),
                state_text(job),
            ),
        )

    @staticmethod
    def _update(connection: sqlite3.Connection, job: Job) -> None:
        connection.execute(
            "update jobs set status = ?, conclusion = ?, active = ?, runner_id = ?, updated_at = ?, completed_at = ?,"
            " version = ?, state = ? where id = ?",
            (
                job.status.value,
                job.conclusion and job.conclusion.value,
                job.active,
                job.runner_id,
                stamp(job.updated_at),
                stamp(job.completed_at),
                job.version,
                state_text(job),
                job.id,
            ),
        )

    def _count(self, status: str, conclusion: str | None, step: int) -> None:
        for name in (status, conclusion):
            if name:
                self._deltas[name] = self._deltas.get(name, 0) + step

    def _list(self, query: JobQuery) -> JobPage:
        columns = schema.jobs.c
        conditions = []
        if query.status is not None:
            conditions.append(columns.status == query.status.value)
        if query.conclusions is not None:
            conditions.append(columns.conclusion.in_([one.value for one in query.conclusions]))
        if query.repository is not None:
            conditions.append(columns.repository == query.repository)
        if query.runner_id is not None:
            conditions.append(columns.runner_id == query.runner_id)
        if query.active is not None:
            conditions.append(columns.active == int(query.active))
        order = [columns[query.sort], columns.id]
        rows = (
            select(columns.request, columns.state)
            .where(*conditions)
            .order_by(*(column.desc() if query.descending else column.asc() for column in order))
            .limit(query.limit)
            .offset(query.offset)
        )
        with self._database.engine.connect() as connection:
            found = tuple(job_of(*row) for row in connection.execute(rows))
            total = connection.execute(select(func.count()).select_from(schema.jobs).where(*conditions)).scalar_one()
        return JobPage(found, total)

    def _prune(self, connection: sqlite3.Connection, before: float, limit: int) -> int:
        sql = "select id, status, conclusion from jobs where completed_at < ? order by completed_at limit ?"
        old = connection.execute(sql, (before, limit)).fetchall()
        for job_id, status, conclusion in old:
            self._count(status, conclusion, -1)
            for table in ("log_chunks", "log_positions"):
                connection.execute(f"delete from {table} where job_id = ?", (job_id,))
            connection.execute("delete from jobs where id = ?", (job_id,))
        return len(old)


def check_name(connection: sqlite3.Connection, runner: Runner) -> None:
    """Refuse a name that another runner has."""
    sql = "select 1 from runners where name = ? and id <> ?"
    if connection.execute(sql, (runner.name, runner.id)).fetchone():
        raise ConflictError(f"a runner named {runner.name!r} exists already; choose another name or delete it first")


def write_runner(connection: sqlite3.Connection, runner: Runner) -> None:
    """Insert or replace a runner."""
    connection.execute(
        "insert into runners values (?, ?, ?, ?) on conflict (id) do update set name = excluded.name, body = excluded.body",
        (runner.id, runner.name, stamp(runner.created_at), runner_text(runner)),
    )


class Runners:
    """Runners, names unique."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, runner: Runner, event: Event | None = None) -> Event | None:
        def work(connection: sqlite3.Connection) -> Event | None:
            check_name(connection, runner)
            write_runner(connection, runner)
            return store_event(connection, event) if event else None

        return await self._database.write(work)

    async def get(self, runner_id: str) -> Runner | None:
        sql = "select body from runners where id = ?"
        row = await self._database.read(lambda connection: connection.execute(sql, (runner_id,)).fetchone())
        return runner_of(row[0]) if row else None

    async def list(self) -> list[Runner]:
        sql = "select body from runners order by created_at, id"
        rows = await self._database.read(lambda connection: connection.execute(sql).fetchall())
        return [runner_of(body) for (body,) in rows]

    async def delete(self, runner_id: str, event: Event | None = None) -> Event | None:
        def work(connection: sqlite3.Connection) -> Event | None:
            gone = connection.execute("delete from runners where id = ?", (runner_id,)).rowcount
            return store_event(connection, event) if gone and event else None

        return await self._database.write(work)


class Events:
    """The one order of events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, event: Event) -> Event:
        return await self._database.write(lambda connection: store_event(connection, event))

    async def after(self, sequence: int, limit: int = 500) -> list[Event]:
        sql = f"select {_EVENT} from events where sequence > ? order by sequence limit ?"
        rows = await self._database.read(lambda connection: connection.execute(sql, (sequence, limit)).fetchall())
        return [event_of(row) for row in rows]

    async def last(self) -> int:
        sql = "select seq from sqlite_sequence where name = 'events'"
        row = await self._database.read(lambda connection: connection.execute(sql).fetchone())
        return int(row[0]) if row else 0

    async def prune(self, before: datetime, limit: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute("select sequence, at from events order by sequence limit ?", (limit,)).fetchall()
            old = [sequence for sequence, at in rows if at < before.timestamp()]
            connection.executemany("delete from events where sequence = ?", [(sequence,) for sequence in old])
            return len(old)

        return await self._database.write(work)


class Logs:
    """Chunks of logs, and where each ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, job_id: str, chunks: Sequence[LogChunk], position: LogPosition) -> None:
        def work(connection: sqlite3.Connection) -> None:
            known = connection.execute("select lines from log_positions where job_id = ?", (job_id,)).fetchone()
            lines = known[0] if known else 0
            fresh = [chunk for chunk in chunks if chunk.first_line > lines]
            connection.executemany(_INSERT_CHUNK, [_chunk_row(job_id, chunk) for chunk in fresh])
            if position.lines >= lines:
                connection.execute(
                    "insert or replace into log_positions values (?, ?, ?, ?, ?, ?, ?)",
                    (
                        job_id,
                        position.lines,
                        position.size,
                        position.attempt,
                        position.cursor,
                        position.step,
                        position.truncated,
                    ),
                )

        await self._database.write(work)

    async def read(self, job_id: str, after: int = 0, limit: int = 16) -> Sequence[LogChunk]:
        sql = f"select {_CHUNK} from log_chunks where job_id = ? and last_line > ? order by last_line limit ?"
        rows = await self._database.read(lambda connection: connection.execute(sql, (job_id, after, limit)).fetchall())
        return [_chunk(row) for row in rows]

    async def position(self, job_id: str) -> LogPosition:
        sql = "select lines, size, attempt, cursor, step, truncated from log_positions where job_id = ?"
        row = await self._database.read(lambda connection: connection.execute(sql, (job_id,)).fetchone())
        if row is None:
            return LogPosition()
        lines, size, attempt, cursor, step, truncated = row
        return LogPosition(lines, size, attempt, cursor, step, bool(truncated))

    async def prune(self, before: datetime, limit: int) -> int:
        def work(connection: sqlite3.Connection) -> int:
            sql = (
                "select p.job_id from log_positions p join jobs j on j.id = p.job_id"
                " where j.completed_at < ? order by j.completed_at limit ?"
            )
            old = connection.execute(sql, (before.timestamp(), limit)).fetchall()
            connection.executemany("delete from log_chunks where job_id = ?", old)
            connection.executemany("delete from log_positions where job_id = ?", old)
            return len(old)

        return await self._database.write(work)


_CHUNK = "attempt, first_line, last_line, size, marks, step, data, cursor"
_INSERT_CHUNK = (
    "insert or ignore into log_chunks (job_id, attempt, first_line, last_line, size, marks, step, data, cursor)"
    " values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _chunk_row(job_id: str, chunk: LogChunk) -> tuple[Any, ...]:
    marks = dumps(chunk.marks)
    first, last = chunk.first_line, chunk.last_line
    return job_id, chunk.attempt, first, last, chunk.size, marks, chunk.step, chunk.data, chunk.cursor


def _chunk(row: tuple[Any, ...]) -> LogChunk:
    attempt, first, last, size, marks, step, data, cursor = row
    pairs = tuple((line, at) for line, at in json.loads(marks))
    return LogChunk(attempt, first, last - first + 1, size, pairs, step, data, cursor)


class Settings:
    """Small settings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> Mapping[str, Any] | None:
        sql = "select value from settings where key = ?"
        row = await self._database.read(lambda connection: connection.execute(sql, (key,)).fetchone())
        return mapping_of(row[0]) if row else None

    async def put(self, key: str, value: Mapping[str, Any] | None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            if value is None:
                connection.execute("delete from settings where key = ?", (key,))
            else:
                connection.execute("insert or replace into settings values (?, ?)", (key, dumps(value)))

        await self._database.write(work)
