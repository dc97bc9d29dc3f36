"""Run fleets of self-hosted GitHub Actions runners: an embeddable library with pluggable backends.

```python
async with Hub(HubConfig()) as hub:
    job = await hub.delegate(JobRequest(repository="octo/hello", job_name="hello", command=("echo", "hello")))
    print((await hub.wait(job.id)).conclusion)
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Where each name lives: a name is imported when it is first used, so that `import runnerhub` costs next to nothing.
_HOMES = {
    "runnerhub.engine.hub": ("Hub",),
    "runnerhub.engine.pool": ("RunnerPool",),
    "runnerhub.engine.scheduler": ("Scheduler",),
    "runnerhub.hookspecs": ("hookimpl",),
    "runnerhub.model.config": ("HubConfig", "Placement", "PoolConfig"),
    "runnerhub.model.errors": (
        "ConfigurationError",
        "ConflictError",
        "ContainerStartError",
        "HubStateError",
        "LeaseLostError",
        "NotFoundError",
        "PluginError",
        "RunnerHubError",
        "SchemaError",
        "StorageFullError",
        "UnavailableError",
        "ValidationError",
    ),
    "runnerhub.model.event": ("Event",),
    "runnerhub.model.job": (
        "Conclusion",
        "Explanation",
        "Job",
        "JobPage",
        "JobQuery",
        "JobRequest",
        "JobStatus",
        "Priority",
        "Reason",
        "Resources",
    ),
    "runnerhub.model.log": ("LogLine",),
    "runnerhub.model.runner": ("Runner",),
    "runnerhub.scanner.scanner": ("Scanner",),
}


def __getattr__(name: str) -> Any:
    """A public name, from the room where it lives."""
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
