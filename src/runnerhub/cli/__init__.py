"""The `runnerhub` command."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import version

import click

from runnerhub.model.errors import RunnerHubError, ValidationError

_COMMANDS = {
    "run": "run",
    "jobs": "show",
    "logs": "show",
    "explain": "show",
    "cancel": "show",
    "retry": "show",
    "runners": "show",
    "doctor": "doctor",
    "db": "db",
}


class _Commands(click.Group):
    """Commands imported when they are used, so that `--help` and completion are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click passes it)
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"runnerhub.cli.{_COMMANDS[cmd_name]}"), cmd_name)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("runnerhub"), prog_name="runnerhub")
def cli() -> None:
    """Run fleets of self-hosted GitHub Actions runners."""


def main() -> None:
    """Run the command; what goes wrong on purpose is one line that says what to do, never a traceback."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except BrokenPipeError:
        # Whoever read us has enough; the interpreter must not complain about it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except RunnerHubError as error:
        if os.environ.get("RUNNERHUB_DEBUG"):
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ValidationError) else 1)
