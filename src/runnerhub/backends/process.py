"""Containers that are process trees on the hub's own machine: nothing to install, and they outlive the hub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from runnerhub.backends._process.box import LOST, Box
from runnerhub.backends._process.launcher import Launcher
from runnerhub.model.config import BackendOptions
from runnerhub.model.container import Container, ContainerSpec, ExitStatus, LogFrame, Usage
from runnerhub.model.errors import (
    ConfigurationError,
    ContainerStartError,
    NotFoundError,
    UnavailableError,
    ValidationError,
)

SANDBOXES = ("auto", "bwrap", "none")
PIECE = 256 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_SOONEST, _LATEST = 0.005, 0.1
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INHERITED = ("LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TERM")


class ProcessContainers:
    """A `ContainerBackend` with `ResumableLogs` and `Stats`. Each job has a supervisor of its own (see there).

    Setting `sandbox`: `auto` uses bubblewrap where it is installed and works, `bwrap` insists on it, `none` does without.
    A job sees a private working directory, HOME and TMPDIR, and of the hub's environment nothing but the locale, the
    user's name and a PATH that begins with this interpreter's scripts.
    """

    def __init__(self, options: BackendOptions) -> None:
        known = {"sandbox"}
        for name in options.settings:
            if name not in known:
                expected = ", ".join(sorted(known))
                raise ConfigurationError("Unknown key", field=f"settings.process.{name}", value=name, expected=expected)
        self._sandbox = options.settings.get("sandbox", "auto")
        if self._sandbox not in SANDBOXES:
            raise ConfigurationError(
                "Unknown value",
                field="settings.process.sandbox",
                value=self._sandbox,
                expected=f"one of {', '.join(SANDBOXES)}",
            )
        self._root = options.data_dir.absolute() / "process"
        self._launcher = Launcher()
        self._wrap: list[str] = []
        self._base: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        """Make the directory, try the sandbox. Raises `UnavailableError` and `ConfigurationError`."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self._root, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise UnavailableError(
                f"data_dir {str(self._root.parent)!r} cannot be written ({error.strerror}); name a writable directory"
            ) from error
        self._base = _base_environment()
        if self._sandbox != "none":
            self._wrap = await anyio.to_thread.run_sync(self._find_sandbox)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the launcher go. Jobs go on."""
        self._launcher.close()

    async def start(self, spec: ContainerSpec) -> Container:
        """Start, or adopt what has this name already. Raises `ContainerStartError`: then nothing is left behind."""
        if spec.image is not None:
            raise ContainerStartError(
                f"the process backend has no images (asked for {spec.image!r}); use another container backend", retryable=False
            )
        box = self._box(spec.name)
        request = {
            "name": spec.name,
            "directory": str(box.directory),
            "labels": dict(spec.labels),
            "command": list(spec.command),
            "wrap": self._wrap,
            "base": self._base,
            "env": dict(spec.env),
            "workspace": None if spec.workspace is None else str(spec.workspace.absolute()),
            "memory": (spec.resources.memory_mb or 0) * 1024 * 1024,
            "pids": spec.resources.pids or 0,
            "cpus": spec.resources.cpus or 0,
        }
        try:
            fresh = await self._launcher.launch(request)
        except ContainerStartError:
            if not box.started:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(box.delete)
            raise
        if fresh:
            return Container(id=spec.name, name=spec.name, labels=spec.labels)
        return await self._adopted(box)

    def logs(self, container_id: str) -> AsyncGenerator[bytes]:
        """All output, to its end."""
        return self._pieces(container_id)

    async def logs_after(self, container_id: str, cursor: str) -> AsyncGenerator[LogFrame]:
        """Output behind a cursor (a number of bytes), to its end."""
        box, offset, pause = self._known(container_id), int(cursor or 0), _SOONEST
        with box.output.open("rb", buffering=0) as output:
            over = False
            while True:
                piece = os.pread(output.fileno(), PIECE, offset)
                if piece:
                    offset, pause = offset + len(piece), _SOONEST
                    yield LogFrame(piece, str(offset))
                elif over:
                    return
                else:
                    with anyio.move_on_after(pause) as waiting:
                        await box.ended()
                    over = not waiting.cancelled_caught
                    pause = min(_LATEST, pause * 2)

    async def wait(self, container_id: str) -> ExitStatus:
        """Wait for the end of all of it. Raises `NotFoundError`."""
        box = self._known(container_id)
        await box.ended()
        status = box.exit()
        if status is None:
            await box.clear()
            status = box.exit() or LOST
        return status

    async def stop(self, container_id: str, grace: timedelta) -> None:
        """TERM, then after `grace` KILL, to the whole tree; returns when all of it is gone."""
        box = self._box(container_id)
        if box.started:
            await box.stop(grace)

    async def remove(self, container_id: str) -> None:
        """Kill what is left and delete the directory."""
        box = self._box(container_id)
        if box.started:
            await box.stop(timedelta(0))
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(box.delete)

    async def find(self, labels: Mapping[str, str]) -> list[Container]:
        """All containers that carry these labels."""
        return await anyio.to_thread.run_sync(self._find, labels)

    async def usage(self, container_id: str) -> Usage | None:
        """What its processes use now."""
        return await anyio.to_thread.run_sync(self._box(container_id).usage)

    # ------------------------------------------------------------------------------------------------- private

    async def _pieces(self, container_id: str) -> AsyncGenerator[bytes]:
        async with aclosing(self.logs_after(container_id, "")) as frames:
            async for frame in frames:
                yield frame.data

    async def _adopted(self, box: Box) -> Container:
        """What somebody else started, or is just starting, under this name."""
        pause = _SOONEST
        while True:
            container = box.container()
            if container is not None:
                return container
            if not box.alive():
                raise ContainerStartError(f"container {box.name} was being started elsewhere, and that failed")
            await anyio.sleep(pause)
            pause = min(_LATEST, pause * 2)

    def _box(self, name: str) -> Box:
        if not _NAME.match(name):
            raise ValidationError(
                "Bad container name", field="name", value=name, expected="letters, digits, '.', '_' and '-', at most 200"
            )
        return Box(self._root / name)

    def _known(self, container_id: str) -> Box:
        box = self._box(container_id)
        if not box.started:
            raise NotFoundError("container", container_id)
        return box

    def _find(self, labels: Mapping[str, str]) -> list[Container]:
        found = []
        for directory in sorted(self._root.iterdir()):
            container = Box(directory).container()
            if container is not None and labels.items() <= container.labels.items():
                found.append(container)
        return found

    def _find_sandbox(self) -> list[str]:
        bwrap = shutil.which("bwrap")
        if bwrap is not None and self._works(_sandbox(bwrap)):
            return _sandbox(bwrap)
        if self._sandbox == "bwrap":
            raise ConfigurationError(
                "bubblewrap is not installed or does not work here",
                field="settings.process.sandbox",
                value="bwrap",
                expected="an installed bubblewrap (apt install bubblewrap) that may create namespaces, or sandbox = 'none'",
            )
        return []

    def _works(self, wrap: list[str]) -> bool:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=self._root) as directory:
            for name in ("work", "tmp"):
                (Path(directory) / name).mkdir()
            probe = [word.replace("{directory}", directory) for word in wrap]
            return not subprocess.run([*probe, "true"], capture_output=True, check=False).returncode


def _sandbox(bwrap: str) -> list[str]:
    """Read-only root, own process ids; the container's directory is all that can be written, also as /tmp."""
    wrap = [bwrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--ro-bind", "/", "/"]
    wrap += ["--dev", "/dev", "--proc", "/proc"]
    wrap += ["--bind", "{directory}/tmp", "/tmp"]  # noqa: S108
    for path in sorted({sys.prefix, sys.base_prefix, *sys.path}):
        if path.startswith("/tmp/"):  # noqa: S108  (an interpreter and its packages that the line above would hide)
            wrap += ["--ro-bind-try", path, path]
    return [*wrap, "--bind", "{directory}", "{directory}", "--chdir", "{directory}/work", "--"]


def _base_environment() -> dict[str, str]:
    scripts = sysconfig.get_path("scripts")
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, "PATH": f"{scripts}:{_PATH}" if sys.platform == "linux" else f"{scripts}:/opt/homebrew/bin:{_PATH}"}
