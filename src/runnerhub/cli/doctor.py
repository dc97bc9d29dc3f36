"""`runnerhub doctor`: whether everything that a hub needs is there, and what to do about what is not."""

from __future__ import annotations

import platform
import resource
import shutil
import sys
from collections.abc import Iterator

import anyio
import click
from attrs import frozen

from runnerhub.cli.common import Where, where_options
from runnerhub.cli.render import plain_event, table
from runnerhub.engine.hub import Hub, data_directory
from runnerhub.engine.plugins import Plugins
from runnerhub.model.config import BackendOptions, HubConfig
from runnerhub.model.errors import RunnerHubError

_FEW_FILES = 1024
_LITTLE_ROOM = 2**30


@frozen
class Finding:
    """What one check found: `ok`, `warn` or `fail`."""

    check: str
    verdict: str
    told: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@where_options
def doctor(where: Where, *, as_json: bool) -> None:
    """Check Python, directories, storage, container backends and plugins."""
    import json

    found = list(_machine())
    try:
        config = where.config()
    except RunnerHubError as error:
        found.append(Finding("configuration", "fail", str(error)))
    else:
        found.append(Finding("configuration", "ok", f"storage {config.storage}, containers {config.containers}"))
        found += anyio.run(_check, config)
    if as_json:
        for one in found:
            click.echo(json.dumps(plain_event(one)))
    else:
        table(("check", "", "found"), [(one.check, one.verdict, one.told) for one in found])
    sys.exit(1 if any(one.verdict == "fail" for one in found) else 0)


def _machine() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = files >= _FEW_FILES
    told = f"{files} open files" if enough else f"{files} open files: raise it, such as by ulimit -n 4096"
    yield Finding("limits", "ok" if enough else "warn", told)


async def _check(config: HubConfig) -> list[Finding]:
    found = []
    directory = data_directory(config)
    options = BackendOptions(data_dir=directory)
    try:
        plugins = Plugins()
    except RunnerHubError as error:
        return [Finding("plugins", "fail", str(error))]
    found.append(Finding("plugins", "ok", ", ".join(plugins.plugins()) or "none but the built-in ones"))
    try:
        async with Hub(config, observe=True) as hub:
            counts = (await hub.status()).jobs
            found.append(Finding("storage", "ok", f"{config.storage}: {sum(counts.values())} counts"))
    except RunnerHubError as error:
        found.append(Finding("storage", "fail", str(error)))
    if directory.exists():
        free = shutil.disk_usage(directory).free
        told = f"{free / 2**30:.1f} GiB free in {directory}"
        found.append(Finding("disk", "ok" if free >= _LITTLE_ROOM else "warn", told))
    wanted = {pool.containers or config.containers for pool in config.pools}
    for name in sorted({*plugins.names("container"), *wanted}):
        try:
            async with plugins.containers(name, options) as containers:
                await containers.find({})
        except RunnerHubError as error:
            found.append(Finding(f"containers {name}", "fail" if name in wanted else "warn", str(error)))
        else:
            found.append(Finding(f"containers {name}", "ok", "works"))
    return found
