"""For tests of plugins and of programs that embed the hub: suites that prove a backend, and fakes that need no service.

The suites need pytest with anyio's plugin (`pip install pytest anyio`); the fakes need nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runnerhub.testing.clock import FakeClock
from runnerhub.testing.containers import FakeContainers, FakeRun

if TYPE_CHECKING:
    from runnerhub.testing.container_suite import ContainerSuite
    from runnerhub.testing.queue_suite import QueueSuite
    from runnerhub.testing.storage_suite import StorageSuite

__all__ = ["ContainerSuite", "FakeClock", "FakeContainers", "FakeRun", "QueueSuite", "StorageSuite"]

_SUITES = {
    "ContainerSuite": "runnerhub.testing.container_suite",
    "QueueSuite": "runnerhub.testing.queue_suite",
    "StorageSuite": "runnerhub.testing.storage_suite",
}


def __getattr__(name: str) -> Any:
    """The suites, imported when they are asked for, since they need pytest."""
    if name not in _SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_SUITES[name]), name)
    except ModuleNotFoundError as error:
        if error.name == "pytest":
            raise ImportError(f"runnerhub.testing.{name} needs pytest: pip install pytest") from error
        raise
