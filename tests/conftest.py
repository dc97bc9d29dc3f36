"""Everything runs on asyncio and on trio; nothing that a test starts outlives the tests."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Supervisors of jobs end with their jobs; one that is left says which test it is of."""
    yield
    left = _supervisors()
    for _ in range(100):
        if not left:
            return
        time.sleep(0.1)
        left = _supervisors()
    pytest.fail(f"supervisors are left of {left}")


def _supervisors() -> list[str]:
    """The tests whose supervisors still run; the environment of one tells."""
    found = []
    for entry in Path("/proc").iterdir() if sys.platform == "linux" else ():
        try:
            if not entry.name.isdigit() or b"supervisor.py" not in (entry / "cmdline").read_bytes():
                continue
            environment = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        tests = [one for one in environment if one.startswith(("PYTEST_CURRENT_TEST=", f"{SESSION}="))]
        if f"{SESSION}={os.environ[SESSION]}" in tests:
            found += tests[:1]
    return found


SESSION = "RUNNERHUB_TEST_SESSION"
os.environ[SESSION] = str(os.getpid())
