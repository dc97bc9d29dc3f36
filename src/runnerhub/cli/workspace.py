"""A snapshot of the current directory, as a tar file that every job of a run unpacks for itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def local_repository(directory: Path) -> str:
    """The name that jobs of a directory run under."""
    name = _UNSAFE.sub("-", directory.resolve().name).strip(".-")[:100]
    return f"local/{name or 'workspace'}"


MOST_BYTES = 256 * 2**20
MOST_FILES = 20_000


def snapshot(directory: Path, target: Path) -> bool:
    """Write a tar of the directory: what git tracks or would track where it is a work tree, else everything.

    Everything has its limit, 256 MiB and 20,000 files: beyond it nothing is written and `False` returned, since somebody
    who runs a command in their home directory does not mean all of it.
    """
    names = _tracked(directory)
    if names is None:
        names = _everything(directory)
    if names is None:
        return False
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            path = directory / name
            try:
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode):
                    archive.add(path, arcname=name, recursive=False)
            except FileNotFoundError:  # tracked but deleted, or gone this very moment
                continue
    return True


def _tracked(directory: Path) -> list[str] | None:
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(directory), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=False)
    if listed.returncode:
        return None
    return sorted({os.fsdecode(name) for name in listed.stdout.split(b"\0") if name})


def _everything(directory: Path) -> list[str] | None:
    found: list[str] = []
    size = 0
    for root, directories, files in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != ".git")
        below = Path(root).relative_to(directory)
        found += [str(below / name) for name in [*directories, *sorted(files)]]
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                size += (Path(root) / name).lstat().st_size
        if size > MOST_BYTES or len(found) > MOST_FILES:
            return None
    return found
