"""The first schema."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
create table jobs (
    id text primary key not null,
    repository text not null,
    github_job_id integer,
    status text not null,
    conclusion text,
    active integer not null,
    runner_id text,
    created_at float not null,
    updated_at float not null,
    completed_at float,
    version integer not null,
    request text not null,
    state text not null
);
create index jobs_by_age on jobs (created_at, id);
create index jobs_by_repository on jobs (repository, created_at);
create index jobs_open on jobs (status, created_at) where status != 'completed';
create index jobs_done on jobs (completed_at) where completed_at is not null;
create unique index jobs_of_github on jobs (repository, github_job_id) where github_job_id is not null;
create table runners (
    id text primary key not null,
    name text not null unique,
    created_at float not null,
    body text not null
);
create table events (
    sequence integer primary key autoincrement not null,
    at float not null,
    kind text not null,
    job_id text,
    runner_id text,
    repository text,
    data text not null
);
create table log_chunks (
    id integer primary key not null,
    job_id text not null,
    last_line integer not null,
    first_line integer not null,
    attempt integer not null,
    size integer not null,
    marks text not null,
    step text,
    cursor text not null,
    data blob not null,
    unique (job_id, last_line)
);
create table log_positions (
    job_id text primary key not null,
    lines integer not null,
    size integer not null,
    attempt integer not null,
    cursor text not null,
    step text,
    truncated integer not null
);
create table settings (key text primary key not null, value text not null);
create table counters (name text primary key not null, n integer not null);
create table queue_lanes (
    id integer primary key not null,
    labels text not null,
    priority text not null,
    waiting integer not null,
    unique (labels, priority)
);
create table queue_entries (
    job_id text primary key not null,
    state integer not null,
    lane integer not null,
    level integer not null,
    tag float not null,
    seq integer not null,
    repository text not null,
    weight float not null,
    since float not null,
    due float,
    owner text,
    token integer
) without rowid;
create index queue_waiting on queue_entries (lane, level, tag, seq) where state = 0;
create index queue_ageing on queue_entries (since) where state = 0 and level > 0;
create index queue_active on queue_entries (owner) where state = 1;
create index queue_delayed on queue_entries (due) where state = 2;
create table queue_shares (
    level integer not null,
    repository text not null,
    tag float not null,
    waiting integer not null,
    primary key (level, repository)
) without rowid;
create table queue_levels (level integer primary key not null, virtual float not null);
create table queue_owners (name text primary key not null, until float not null, boot text not null);
create table queue_failed (id integer primary key not null, queue text not null, job_id text not null);
"""


def upgrade() -> None:
    """Create everything."""
    for statement in TABLES.split(";"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    """Nothing is older than this."""
