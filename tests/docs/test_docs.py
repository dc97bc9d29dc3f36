"""What the documentation shows works, and nothing that users meet is missing from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from attrs import fields

import runnerhub
from runnerhub import events
from runnerhub.cli import cli
from runnerhub.engine.plugins import Plugins
from runnerhub.model.config import HubConfig, PoolConfig
from runnerhub.model.job import Reason

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(page, code, id=f"{page.relative_to(ROOT)}:{index}")
    for page in PAGES
    for index, code in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("path", "code"), EXAMPLES)
def test_an_example_runs(path: Path, code: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RUNNERHUB_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    if "print(" in code:
        assert done.stdout


@pytest.mark.parametrize("kind", [HubConfig, PoolConfig])
def test_every_setting_is_documented(kind: type) -> None:
    text = page("reference/configuration.md")
    assert [one.name for one in fields(kind) if f"| `{one.name}` |" not in text] == []


def test_every_reason_is_explained_and_none_that_is_not_one() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", page("reference/reasons.md"), re.MULTILINE)
    assert sorted(documented) == sorted(reason.value for reason in Reason)


def test_every_command_and_option_is_documented() -> None:
    text = page("reference/command-line.md")
    context = click.Context(cli)
    for name in cli.list_commands(context):
        assert f"`runnerhub {name}" in text
        command = cli.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert any(one in text for one in option.opts), f"{name} {option.opts}"


def test_every_hook_event_error_and_ability_is_documented_where_it_stands() -> None:
    from runnerhub import hookspecs, protocols
    from runnerhub.model import errors

    assert all(getattr(hookspecs, name).__doc__ for name in Plugins.hooks())
    assert all(getattr(events, name).__doc__ for name in events.__all__)
    assert all(getattr(errors, name).__doc__ for name in errors.__all__)
    assert all(getattr(protocols, name).__doc__ for name in protocols.__all__)


@pytest.mark.parametrize("module", [runnerhub, events, runnerhub.model.errors, __import__("runnerhub.protocols").protocols])
def test_public_names_are_sorted_and_there(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert names == sorted(names)
    assert all(hasattr(module, name) for name in names)


def test_links_lead_somewhere() -> None:
    for one in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", one.read_text(encoding="utf-8")):
            assert (one.parent / target).exists(), f"{one.relative_to(ROOT)}: {target}"


def test_the_readme_has_exactly_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^<!-- command (\w+) -->$", text, re.MULTILINE) == ["run", "tests"]
    assert len(re.findall(r"^```sh$", text, re.MULTILINE)) == 2
