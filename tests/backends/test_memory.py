"""The memory backends pass the suites."""

from __future__ import annotations

import pytest

from runnerhub.backends.memory import MemoryQueue, MemoryStorage
from runnerhub.model.config import BackendOptions
from runnerhub.testing import QueueSuite, StorageSuite


class TestMemoryStorage(StorageSuite):
    @pytest.fixture
    def storage(self, options: BackendOptions) -> MemoryStorage:
        return MemoryStorage(options)


class TestMemoryQueue(QueueSuite):
    @pytest.fixture
    def queue(self, options: BackendOptions) -> MemoryQueue:
        return MemoryQueue(options)
