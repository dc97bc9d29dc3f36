"""What all commands share: the options that choose a storage, opening a hub on it, and finding a job."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import evolve, frozen

from runnerhub.engine.hub import Hub
from runnerhub.model.config import HubConfig
from runnerhub.model.errors import NotFoundError
from runnerhub.model.job import Job, JobQuery

F = TypeVar("F", bound=Callable[..., Any])

_SHORTEST_TAIL = 4
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@frozen
class Where:
    """Which storage, from the options every command has."""

    config_file: Path | None
    storage: str | None
    data_dir: Path | None

    def config(self) -> HubConfig:
        """Options, over the file, over the environment, over defaults."""
        config = HubConfig.from_toml(self.config_file) if self.config_file else HubConfig.from_env()
        if self.storage is not None:
            config = evolve(config, storage=self.storage)
        if self.data_dir is not None:
            config = evolve(config, data_dir=self.data_dir)
        return config

    def look(self) -> Hub:
        """A hub that only looks."""
        return Hub(self.config(), observe=True)


def where_options(command: F) -> F:
    """Add `--config`, `--storage` and `--data-dir`; the command gets a `Where`."""

    def wrapped(*args: object, config_file: Path | None, storage: str | None, data_dir: Path | None, **more: object) -> object:
        return command(*args, where=Where(config_file, storage, data_dir), **more)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    if hasattr(command, "__click_params__"):
        wrapped.__click_params__ = command.__click_params__  # type: ignore[attr-defined]
    options = (
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="Configuration file (TOML)."),
        click.option("--storage", metavar="URL", help="Storage, such as sqlite:////path/to/file.db or memory."),
        click.option("--data-dir", type=click.Path(path_type=Path), help="Where the hub keeps what it needs."),
    )
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


async def find_job(hub: Hub, name: str) -> Job:
    """A job by its id, or by the end of one. Raises `NotFoundError`, and a usage error when several end so."""
    try:
        return await hub.job(name)
    except NotFoundError:
        if len(name) < _SHORTEST_TAIL:
            raise
    page = await hub.jobs(JobQuery(limit=1000))
    found = [job for job in page.jobs if job.id.endswith(name)]
    if not found:
        raise NotFoundError("job", name)
    if len(found) > 1:
        raise click.UsageError(f"{len(found)} jobs end in {name!r}: {', '.join(job.id for job in found[:3])}, ...")
    return found[0]


def shown(text: str, *, colour: bool) -> str:
    """A job's text for a terminal: nothing that moves the cursor; colours only where they are wanted."""
    if not colour:
        return _CONTROL.sub("", text)
    kept = _COLOURS.findall(text)
    if not kept:
        return _CONTROL.sub("", text)
    parts = _COLOURS.split(text)
    mixed = [_CONTROL.sub("", parts[0])]
    for code, part in zip(kept, parts[1:], strict=True):
        mixed += [code, _CONTROL.sub("", part)]
    return "".join([*mixed, "\x1b[0m"])
