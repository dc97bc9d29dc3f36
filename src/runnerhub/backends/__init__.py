"""The backends that come with runnerhub, offered through the same hooks as anybody else's."""

from __future__ import annotations

from collections.abc import Mapping

from runnerhub.hookspecs import ContainerFactory, QueueFactory, StorageFactory, hookimpl


@hookimpl
def runnerhub_storage_backends() -> Mapping[str, StorageFactory]:
    """`sqlite` and `memory`."""
    return {
        "memory": "runnerhub.backends.memory:MemoryStorage",
        "sqlite": "runnerhub.backends.sql:SQLStorage",
    }


@hookimpl
def runnerhub_queue_backends() -> Mapping[str, QueueFactory]:
    """`memory`; a database is the queue of its own storage."""
    return {"memory": "runnerhub.backends.memory:MemoryQueue"}


@hookimpl
def runnerhub_container_backends() -> Mapping[str, ContainerFactory]:
    """`process`."""
    return {"process": "runnerhub.backends.process:ProcessContainers"}
