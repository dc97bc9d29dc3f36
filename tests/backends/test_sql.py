"""The SQL backend passes the suites, and does what only a database must."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runnerhub.backends.sql import SQLQueue, SQLStorage
from runnerhub.model.config import BackendOptions
from runnerhub.testing import QueueSuite, StorageSuite


class TestSQLStorage(StorageSuite):
    @pytest.fixture
    async def storage(self, options: BackendOptions) -> AsyncIterator[SQLStorage]:
        async with SQLStorage(options) as storage:
            yield storage


class TestSQLQueue(QueueSuite):
    @pytest.fixture
    async def queue(self, options: BackendOptions) -> AsyncIterator[SQLQueue]:
        async with SQLStorage(options) as storage, storage.queue() as queue:
            yield queue
