"""What the ledger writes in one step: a job, its event, its queue entry or its lease's end, and its runner."""

from __future__ import annotations

from attrs import frozen

from runnerhub.model.event import Event
from runnerhub.model.job import Job
from runnerhub.model.queue import Lease, Outcome, QueueEntry
from runnerhub.model.runner import Runner


@frozen
class Ack:
    """The end of a lease, and what it counts as."""

    lease: Lease
    outcome: Outcome


@frozen(kw_only=True)
class JobChange:
    """One change of one job. Stored whole or not at all.

    `job.version` must be one above the stored version (0: the job is new), else nothing is written. `put`, `ack` and
    `withdraw` (the entry of a job that ended while it waited) are carried out in the same transaction by a storage that
    is also the queue, and left to the ledger otherwise.
    """

    job: Job
    event: Event
    put: QueueEntry | None = None
    ack: Ack | None = None
    withdraw: bool = False
    runner: Runner | None = None
    remove_runner: str | None = None
