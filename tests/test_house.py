"""The house rules that a linter does not check."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import runnerhub
from runnerhub import Hub, protocols

SOURCE = Path(__file__).parents[1] / "src" / "runnerhub"


def test_importing_it_loads_no_optional_package() -> None:
    never = [
        "docker",
        "sqlalchemy",
        "alembic",
        "litestar",
        "redis",
        "lightkube",
        "httpx",
        "jwt",
        "click",
        "rich",
        "platformdirs",
    ]
    code = f"import sys, runnerhub; runnerhub.Hub; print(*[name for name in {never} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_is_found_where_it_lives() -> None:
    assert sorted(name for names in runnerhub._HOMES.values() for name in names) == runnerhub.__all__
    assert set(runnerhub.__all__) <= set(dir(runnerhub))
    assert all(getattr(runnerhub, name) for name in runnerhub.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nonesuch'"):
        _ = runnerhub.Nonesuch


def test_the_hub_has_at_most_twelve_verbs() -> None:
    verbs = [name for name, _ in inspect.getmembers(Hub, inspect.isfunction) if not name.startswith("_")]
    assert len(verbs) <= 12, verbs


def test_a_port_has_at_most_eight_verbs() -> None:
    for name in protocols.__all__:
        port = getattr(protocols, name)
        verbs = [verb for verb in vars(port) if not verb.startswith("_") and inspect.isfunction(vars(port)[verb])]
        assert len(verbs) <= 8, (name, verbs)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith('"""')
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 480


def test_no_page_of_the_project_names_the_machine_it_was_written_on() -> None:
    for path in [*SOURCE.rglob("*.py"), *SOURCE.parents[1].joinpath("docs").rglob("*.md")]:
        assert "/work/" not in path.read_text(encoding="utf-8").replace("/work/space", ""), path
