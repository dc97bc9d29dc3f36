"""The hub's end of the launcher: one process that forks supervisors, started when the first job comes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from runnerhub.model.errors import ContainerStartError

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_PIECE = 64 * 1024


class Launcher:
    """Asks for supervisors. When the launcher has died, another is started; supervisors never notice."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def launch(self, request: Mapping[str, Any]) -> bool:
        """Start what is asked for; False when that name was started before. Raises `ContainerStartError`."""
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    self._send(theirs)
            except OSError as error:
                raise ContainerStartError(f"the launcher of processes cannot be reached: {error.strerror}") from error
            ours.setblocking(False)
            reply = await self._converse(ours, json.dumps(request).encode() + b"\n")
        if not reply:
            raise ContainerStartError("the supervisor died while it started the job")
        answer = json.loads(reply)
        if "error" in answer:
            raise ContainerStartError(answer["error"], retryable=answer["retryable"])
        return not answer["adopted"]

    def close(self) -> None:
        """Let the launcher go; it ends by itself, and what it started goes on."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _send(self, end: socket.socket) -> None:
        if self._control is not None:
            try:
                socket.send_fds(self._control, [b"s"], [end.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                self.close()
            else:
                return
        self._control = self._open()
        socket.send_fds(self._control, [b"s"], [end.fileno()])

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        return ours

    @staticmethod
    async def _converse(hub: socket.socket, request: bytes) -> bytes:
        """Send the request as the socket takes it, then read one line."""
        left, reply = memoryview(request), b""
        try:
            while left:
                await anyio.wait_writable(hub)
                left = left[hub.send(left[:_PIECE]) :]
            while not reply.endswith(b"\n"):
                await anyio.wait_readable(hub)
                piece = hub.recv(_PIECE)
                if not piece:
                    return b""
                reply += piece
        except (BrokenPipeError, ConnectionResetError):
            return b""
        return reply
