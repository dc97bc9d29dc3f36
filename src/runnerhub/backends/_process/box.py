"""One container on the disk: what its directory says, whether its supervisor lives, and waiting until it does not."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from runnerhub.model.container import Container, ContainerState, ExitStatus, Usage

MARK = "RUNNERHUB_CONTAINER"
_POLL_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


class Box:
    """The directory of one container."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.name = directory, directory.name

    @property
    def started(self) -> bool:
        """Whether it was started, ever."""
        return (self.directory / "start").exists()

    @property
    def output(self) -> Path:
        """What the job printed."""
        return self.directory / "output"

    def alive(self) -> bool:
        """Whether its supervisor lives: it holds the lock as long as it does."""
        try:
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def labels(self) -> Mapping[str, str] | None:
        """Its labels, `None` before they were written."""
        try:
            found: Mapping[str, str] = json.loads((self.directory / "spec").read_bytes())["labels"]
        except FileNotFoundError:
            return None
        return found

    def exit(self) -> ExitStatus | None:
        """How it ended, if its supervisor saw the end."""
        try:
            told = json.loads((self.directory / "exit").read_bytes())
        except FileNotFoundError:
            return None
        status, at = told["status"], datetime.fromtimestamp(told["at"], UTC)
        if status < 0:
            return ExitStatus(code=128 - status, signal=-status, finished_at=at)
        return ExitStatus(code=status, finished_at=at)

    def container(self) -> Container | None:
        """What there is to say of it; `None` while it has not started."""
        labels = self.labels()
        if labels is None or not self.started:
            return None
        alive = self.alive()
        status = None if alive else self.exit() or LOST
        state = ContainerState.RUNNING if alive else ContainerState.EXITED
        return Container(id=self.name, name=self.name, labels=labels, state=state, exit=status)

    async def ended(self) -> None:
        """Wait until the supervisor is gone."""
        watched = self._watch()
        if watched is None:
            while self.alive():
                await anyio.sleep(_POLL_SECONDS)
            return
        try:
            if self.alive():
                await anyio.wait_readable(watched)
        finally:
            os.close(watched)
        while self.alive():  # the kernel lets go of the lock a moment after it tells of the end
            await anyio.sleep(0.001)

    async def stop(self, grace: timedelta) -> None:
        """Have the supervisor end everything; do it ourselves where there is none any more."""
        if self.alive():
            new = self.directory / "grace.new"
            new.write_text(f"{grace.total_seconds()}", encoding="ascii")
            new.rename(self.directory / "grace")
            self._tell(signal.SIGTERM)
            await self.ended()
        if self.exit() is None:
            await self.clear()

    async def clear(self) -> None:
        """Kill what a dead supervisor left behind; every process of the job carries the mark."""
        while pids := marked(self.name):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
            await anyio.sleep(0.005)

    def delete(self) -> None:
        """Delete the directory, whatever the job did to its permissions."""

        def again(_function: object, path: str, _: object) -> None:
            parent = Path(path).parent
            for each in (parent, Path(path)):
                if each.exists() and not each.is_symlink():
                    each.chmod(0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)

        if self.directory.exists():
            shutil.rmtree(self.directory, onerror=again)

    def usage(self) -> Usage | None:
        """Processor time and memory of all its processes."""
        if not self.alive():
            return None
        seconds, pages = 0.0, 0
        for pid in marked(self.name):
            try:
                stat = Path(f"/proc/{pid}/stat").read_bytes()
            except OSError:
                continue
            fields = stat[stat.rindex(b")") + 2 :].split()
            seconds += sum(map(int, fields[11:15])) / _TICKS
            pages += int(fields[21])
        return Usage(cpu_seconds=seconds, memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"))

    def _pid(self) -> int | None:
        try:
            return int((self.directory / "start").read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _watch(self) -> int | None:
        """A descriptor that becomes readable when the supervisor ends (Linux), or `None`."""
        pid = self._pid()
        if pid is None or sys.platform != "linux":
            return None
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None

    def _tell(self, number: int) -> None:
        """Signal the supervisor. That it holds its lock after its pid was opened proves that the pid is its own."""
        pid, watched = self._pid(), self._watch()
        try:
            if watched is not None and self.alive():
                signal.pidfd_send_signal(watched, number)
            elif pid is not None and watched is None and self.alive():
                os.kill(pid, number)
        except ProcessLookupError:
            return
        finally:
            if watched is not None:
                os.close(watched)


LOST = ExitStatus(code=None, lost="its supervisor died, or the machine was restarted")


def marked(name: str) -> list[int]:
    """All processes that carry a container's mark in their environment."""
    wanted = f"{MARK}={name}".encode()
    if sys.platform != "linux":
        return _marked_by_ps(wanted.decode())
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _marked_by_ps(wanted: str) -> list[int]:
    import subprocess

    table = subprocess.run(["/bin/ps", "-axEo", "pid=,command="], capture_output=True, text=True, check=False).stdout
    return [int(line.split(None, 1)[0]) for line in table.splitlines() if wanted in line.split()]
