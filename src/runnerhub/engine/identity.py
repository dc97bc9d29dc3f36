"""Who this hub is: a name that the next life on the same data directory takes up again, and nobody else at the same time."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from runnerhub.model.errors import UnavailableError

_UNSAFE = re.compile(r"[^A-Za-z0-9]+")


class Identity:
    """Holds the name. `first` says whether this process is the one that continues the earlier life."""

    def __init__(self, name: str, data_dir: Path) -> None:
        self._plain = _UNSAFE.sub("-", name).strip("-")[:32] or "hub"
        self._directory = data_dir
        self._lock: int | None = None
        self.name = self._plain
        self.first = False

    def __enter__(self) -> Self:
        """Take the name, or a passing one when another process has it. Raises `UnavailableError`."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark = self._mark()
            self._lock = os.open(self._directory / f"{self._plain}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnavailableError(
                f"data_dir {str(self._directory)!r} cannot be used ({error.strerror}); name a writable directory"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            self.name = f"{self._plain}-{mark}-{secrets.token_hex(3)}"
        else:
            self.first, self.name = True, f"{self._plain}-{mark}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of the name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _mark(self) -> str:
        """What tells this data directory from others that share the storage."""
        path = self._directory / "hub.id"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            found = path.read_text(encoding="ascii").strip()
            if found:
                return found
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            mark = secrets.token_hex(3)
            file.write(mark)
        return mark
