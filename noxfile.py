"""Everything that checks the project; `nox -l` lists it. Each session installs what it needs into an environment of its own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nox

nox.options.sessions = ["lint", "typing", "tests", "docs"]
nox.options.error_on_missing_interpreters = False
PYTHONS = ["3.11", "3.12", "3.13"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, with branch coverage of the rooms that decide."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "--cov", "--cov-report=", *session.posargs)
    session.run("python", "-m", "coverage", "report", "--include=*/runnerhub/model/*,*/runnerhub/engine/*", "--fail-under=95")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, and the import contracts."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """Mypy and pyright."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; a warning is an error."""
    session.install("-e", ".[dev]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "site")


@nox.session
def bench(session: nox.Session) -> None:
    """The measurements; `nox -s bench -- --write docs/explanation/performance.md` puts the figures into the page."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def minimums(session: nox.Session) -> None:
    """The tests with the oldest versions of the core dependencies that we say we work with."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = [re.sub(r">=", "==", requirement) for requirement in project["dependencies"]]
    session.install("-e", ".[dev]", *oldest)
    session.run("python", "-m", "pytest", "-m", "not slow", *session.posargs)
