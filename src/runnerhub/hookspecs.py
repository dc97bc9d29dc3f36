"""The hooks: plain functions that hand over objects or where to import them. None of them is a coroutine.

A factory is `factory(options: BackendOptions) -> backend`; a string `"module:attribute"` is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import pluggy

from runnerhub.model.config import BackendOptions
from runnerhub.model.container import ContainerSpec
from runnerhub.model.event import Event
from runnerhub.model.job import Job
from runnerhub.protocols import ContainerBackend, ImageScanner, QueueBackend, SecretRules, StorageBackend

PROJECT = "runnerhub"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


StorageFactory: TypeAlias = Callable[[BackendOptions], StorageBackend] | str
QueueFactory: TypeAlias = Callable[[BackendOptions], QueueBackend] | str
ContainerFactory: TypeAlias = Callable[[BackendOptions], ContainerBackend] | str
Subscriber: TypeAlias = Callable[[Event], Awaitable[None]]


@hookspec
def runnerhub_storage_backends() -> Mapping[str, StorageFactory]:  # type: ignore[empty-body]
    """Storage backends by name; the name is also the scheme of their URLs."""


@hookspec
def runnerhub_queue_backends() -> Mapping[str, QueueFactory]:  # type: ignore[empty-body]
    """Queue backends by name; the name is also the scheme of their URLs."""


@hookspec
def runnerhub_container_backends() -> Mapping[str, ContainerFactory]:  # type: ignore[empty-body]
    """Container backends by name."""


@hookspec
def runnerhub_image_scanners() -> Mapping[str, Callable[[BackendOptions], ImageScanner] | str]:  # type: ignore[empty-body]
    """Image scanners by name."""


@hookspec
def runnerhub_secret_rules() -> Mapping[str, Callable[[], SecretRules] | str]:  # type: ignore[empty-body]
    """Rules that recognise secrets, by name."""


@hookspec
def runnerhub_subscribers() -> list[Subscriber]:  # type: ignore[empty-body]
    """Async callables that get every event in order. An error in one is logged and stops none of the others."""


@hookspec
def runnerhub_filter_runner_spec(spec: ContainerSpec, job: Job) -> ContainerSpec | None:
    """Change what is about to be started (an egress proxy, a cache), or `None` to leave it. Called in order of plugins."""
