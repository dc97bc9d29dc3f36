"""A plugin from outside the package: it passes the shipped suite, and is used by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

# --- the proof
from runnerhub.model.config import BackendOptions
from runnerhub.testing import ContainerSuite

sys.path.insert(0, str(Path(__file__).with_name("plain")))
from runnerhub_plain import Plain


class TestPlain(ContainerSuite):
    @pytest.fixture
    async def containers(self, tmp_path: Path) -> AsyncIterator[Any]:
        async with Plain(BackendOptions(data_dir=tmp_path)) as containers:
            yield containers


# --- end of the proof


def test_it_is_used_by_its_name_from_the_command_line(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "runnerhub", "run", "--no-workspace", "--containers", "plain"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).with_name("plain")), *sys.path]),
        "RUNNERHUB_DATA_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [*run, "--", "sh", "-c", "echo by the plugin; exit 4"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[0] == "by the plugin", done.stderr
    assert done.returncode == 1
    unknown = subprocess.run([*run[:-1], "plian", "--", "true"], env=environment, capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "'plain' (known: plain, process)" in unknown.stderr
