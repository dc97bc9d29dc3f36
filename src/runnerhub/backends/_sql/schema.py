"""The tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint, text

HEAD = "0001"
"""The newest revision. A database with a newer one is refused, an older one is upgraded."""

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("repository", Text, nullable=False),
    Column("github_job_id", Integer),
    Column("status", Text, nullable=False),
    Column("conclusion", Text),
    Column("active", Integer, nullable=False),
    Column("runner_id", Text),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("completed_at", Float),
    Column("version", Integer, nullable=False),
    Column("request", Text, nullable=False),
    Column("state", Text, nullable=False),
)
Index("jobs_by_age", jobs.c.created_at, jobs.c.id)
Index("jobs_by_repository", jobs.c.repository, jobs.c.created_at)
Index("jobs_open", jobs.c.status, jobs.c.created_at, sqlite_where=jobs.c.status != "completed")
Index("jobs_done", jobs.c.completed_at, sqlite_where=jobs.c.completed_at.is_not(None))
Index(
    "jobs_of_github",
    jobs.c.repository,
    jobs.c.github_job_id,
    unique=True,
    sqlite_where=jobs.c.github_job_id.is_not(None),
)

runners = Table(
    "runners",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("body", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("job_id", Text),
    Column("runner_id", Text),
    Column("repository", Text),
    Column("data", Text, nullable=False),
    sqlite_autoincrement=True,
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("last_line", Integer, nullable=False),
    Column("first_line", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("marks", Text, nullable=False),
    Column("step", Text),
    Column("cursor", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("job_id", "last_line"),
)

log_positions = Table(
    "log_positions",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("lines", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("step", Text),
    Column("truncated", Integer, nullable=False),
)

settings = Table("settings", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

counters = Table("counters", metadata, Column("name", Text, primary_key=True), Column("n", Integer, nullable=False))

queue_lanes = Table(
    "queue_lanes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("labels", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("waiting", Integer, nullable=False),
    UniqueConstraint("labels", "priority"),
)

queue_entries = Table(
    "queue_entries",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("state", Integer, nullable=False),
    Column("lane", Integer, nullable=False),
    Column("level", Integer, nullable=False),
    Column("tag", Float, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("repository", Text, nullable=False),
    Column("weight", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("due", Float),
    Column("owner", Text),
    Column("token", Integer),
    sqlite_with_rowid=False,
)
_entry = queue_entries.c
Index("queue_waiting", _entry.lane, _entry.level, _entry.tag, _entry.seq, sqlite_where=_entry.state == 0)
Index("queue_ageing", _entry.since, sqlite_where=text("state = 0 and level > 0"))
Index("queue_active", _entry.owner, sqlite_where=_entry.state == 1)
Index("queue_delayed", _entry.due, sqlite_where=_entry.state == 2)

queue_shares = Table(
    "queue_shares",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("repository", Text, primary_key=True),
    Column("tag", Float, nullable=False),
    Column("waiting", Integer, nullable=False),
    sqlite_with_rowid=False,
)

queue_levels = Table(
    "queue_levels",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("virtual", Float, nullable=False),
)

queue_owners = Table(
    "queue_owners",
    metadata,
    Column("name", Text, primary_key=True),
    Column("until", Float, nullable=False),
    Column("boot", Text, nullable=False),
)

queue_failed = Table(
    "queue_failed",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("job_id", Text, nullable=False),
)
