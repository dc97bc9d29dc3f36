"""Run all measurements, or those named: `python -m benchmarks [import index queue hub logs] [--write FILE]`."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from benchmarks.measure import Figure

NAMES = ("import", "index", "queue", "hub", "logs")
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def main() -> int:
    """Print the figures as a table; with `--write` put it between the markers of a page."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all by default")
    parser.add_argument("--write", type=Path, help=f"a page with the markers {BEGIN} and {END}")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    figures: list[Figure] = []
    for name in given.names or NAMES:
        measure: Callable[[], list[Figure]] = import_module(f"benchmarks.{name}_").measure
        found = measure()
        figures += found
        for figure in found:
            sys.stdout.write(f"{_row(figure)}\n")
            sys.stdout.flush()
    if given.write:
        page = given.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        given.write.write_text(f"{before}{BEGIN}\n{_table(figures)}\n{END}{after}", encoding="utf-8")
    return 1 if any(figure.met is False for figure in figures) else 0


def _row(figure: Figure) -> str:
    verdict = {True: "met", False: "**missed**", None: ""}[figure.met]
    return f"| {figure.what} | {figure.value} | {figure.target} | {verdict} |"


def _table(figures: list[Figure]) -> str:
    machine = (
        f"Measured on {os.cpu_count()} processors ({platform.machine()}), {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}."
    )
    head = "| what | figure | target | |\n|---|---|---|---|"
    return "\n".join([machine, "", head, *map(_row, figures)])


if __name__ == "__main__":
    sys.exit(main())
