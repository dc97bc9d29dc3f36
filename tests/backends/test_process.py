"""The process backend passes the suite, and its jobs outlive the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runnerhub.backends.process import ProcessContainers
from runnerhub.model.config import BackendOptions
from runnerhub.testing import ContainerSuite


@pytest.fixture
async def containers(tmp_path: Path) -> AsyncIterator[ProcessContainers]:
    async with ProcessContainers(BackendOptions(data_dir=tmp_path)) as containers:
        yield containers
        for container in await containers.find({}):
            await containers.remove(container.id)


class TestProcessContainers(ContainerSuite):
    """The shipped suite."""
