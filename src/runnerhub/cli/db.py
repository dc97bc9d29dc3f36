"""`runnerhub db`: the schema of the storage."""

from __future__ import annotations

from importlib import import_module

import click

from runnerhub.cli.common import Where, where_options
from runnerhub.engine.hub import data_directory
from runnerhub.model.config import BackendOptions


@click.group()
def db() -> None:
    """The database of the storage."""


@db.command()
@where_options
def upgrade(where: Where) -> None:
    """Bring the schema to this version's; hubs do so themselves when they start."""
    config = where.config()
    options = BackendOptions(url=config.storage, data_dir=data_directory(config))
    if config.storage.partition(":")[0] == "memory":
        raise click.UsageError("a storage in memory has no schema; name a database with --storage")
    old, new = import_module("runnerhub.backends.sql").upgrade(options)
    click.echo(f"schema {new}: nothing to do" if old == new else f"schema {old or 'none'} upgraded to {new}")
