"""Run fleets of self-hosted GitHub Actions runners: an embeddable library with pluggable backends.

```python
async with Hub(HubConfig()) as hub:
    job = await hub.delegate(JobRequest(repository="octo/hello", job_name="hello", command=("echo", "hello")))
    print((await hub.wait(job.id)).conclusion)
```
"""

from __future__ import annotations

from runnerhub.engine.hub import Hub
from runnerhub.engine.pool import RunnerPool
from runnerhub.engine.scheduler import Scheduler
from runnerhub.hookspecs import hookimpl
from runnerhub.model.config import HubConfig, Placement, PoolConfig
from runnerhub.model.errors import (
    ConfigurationError,
    ConflictError,
    ContainerStartError,
    HubStateError,
    LeaseLostError,
    NotFoundError,
    PluginError,
    RunnerHubError,
    SchemaError,
    StorageFullError,
    UnavailableError,
    ValidationError,
)
from runnerhub.model.event import Event
from runnerhub.model.job import (
    Conclusion,
    Explanation,
    Job,
    JobPage,
    JobQuery,
    JobRequest,
    JobStatus,
    Priority,
    Reason,
    Resources,
)
from runnerhub.model.log import LogLine
from runnerhub.model.runner import Runner
from runnerhub.scanner.scanner import Scanner

__all__ = [
    "Conclusion",
    "ConfigurationError",
    "ConflictError",
    "ContainerStartError",
    "Event",
    "Explanation",
    "Hub",
    "HubConfig",
    "HubStateError",
    "Job",
    "JobPage",
    "JobQuery",
    "JobRequest",
    "JobStatus",
    "LeaseLostError",
    "LogLine",
    "NotFoundError",
    "Placement",
    "PluginError",
    "PoolConfig",
    "Priority",
    "Reason",
    "Resources",
    "Runner",
    "RunnerHubError",
    "RunnerPool",
    "Scanner",
    "Scheduler",
    "SchemaError",
    "StorageFullError",
    "UnavailableError",
    "ValidationError",
    "hookimpl",
]
