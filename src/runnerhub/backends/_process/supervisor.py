"""Runs one job's processes and outlives the hub. A program of its own: started with `python -I -S`, it imports nothing of ours.

The hub keeps one *launcher* (this file as a process without threads, so that forking it is cheap and safe). For every
start the launcher gets one end of a socket pair and forks a *supervisor* into a session of its own. That one reads the
request from the socket, makes the container's directory, starts the command, answers, and from then on needs nobody:

    lock       held (flock) as long as the supervisor lives: the proof of life
    start      claimed once, for ever (O_EXCL): a name is started once, however often it is asked for
    spec       name and labels, for a later life of the hub
    output     what the job prints, appended by the job itself
    grace      seconds, written by the hub before it sends TERM
    exit       how it ended, written as a whole; nothing of the job lives when it is there
    work home tmp    the job's private directories
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import sys
import time

LINUX = sys.platform == "linux"
MARK = "RUNNERHUB_CONTAINER"
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None, use_errno=True) if LINUX else None


def launcher(control: socket.socket) -> None:
    """Fork a supervisor for every socket that comes, until the hub is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control.set_inheritable(False)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        os.set_inheritable(descriptors[0], False)
        if os.fork():
            os.close(descriptors[0])
            continue
        control.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with socket.socket(fileno=descriptors[0]) as hub:
            Supervisor(hub).run()
        return


class StartError(Exception):
    """The container did not start; `retryable` says whether that may be different another time."""

    def __init__(self, text: str, *, retryable: bool) -> None:
        super().__init__(text)
        self.retryable = retryable


class Supervisor:
    """One container, from its request to its exit."""

    def __init__(self, hub: socket.socket) -> None:
        self.hub = hub
        self.job = 0
        self.wrapped = False
        self.directory = ""
        self.lock = -1

    def run(self) -> None:
        """Start the job, tell the hub, and stay until everything of it is gone."""
        try:
            with self.hub.makefile("rb") as request:
                line = request.readline()
            if not line:
                return
            adopted = not self.start(json.loads(line))
        except StartError as error:
            self.answer(error=str(error), retryable=error.retryable)
            return
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            self.answer(error=f"{error.strerror}{where}", retryable=True)
            return
        self.answer(adopted=adopted)
        if not adopted:
            status = self.wait()
            self.sweep()
            self.write("exit", json.dumps({"status": status, "at": time.time()}))

    def answer(self, **fields: object) -> None:
        """Tell the hub; one that is gone meanwhile will find us."""
        try:
            self.hub.sendall(json.dumps(fields).encode() + b"\n")
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
        self.hub.close()

    def start(self, request: dict) -> bool:
        """Start the command; False when this name was started before."""
        self.directory = request["directory"]
        os.umask(0o077)
        os.makedirs(self.directory, exist_ok=True)
        self.lock = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.path.exists(self.path("start")):
            return False
        self.write("spec", json.dumps({"name": request["name"], "labels": request["labels"]}))
        for name in ("work", "home", "tmp"):
            os.makedirs(self.path(name), exist_ok=True)
        if request["workspace"]:
            self.unpack(request["workspace"])
        marker = os.open(self.path("start"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(marker, b"%d" % os.getpid())
        os.close(marker)
        if LIBC is not None:
            LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGALRM, self.on_alarm)
        try:
            self.spawn(request)
        except BaseException:
            os.unlink(self.path("start"))
            raise
        return True

    def unpack(self, archive: str) -> None:
        """Unpack the workspace. `tar` itself refuses members that would leave the directory."""
        pid = os.fork()
        if not pid:
            report = os.open(self.path("unpack"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(report, 2)
            os.umask(0o022)
            try:
                os.execvp("tar", ["tar", "-x", "-f", archive, "-C", self.path("work"), "--no-same-owner"])
            except OSError as error:
                os.write(2, f"tar: {error.strerror}".encode())
            os._exit(127)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            with open(self.path("unpack"), encoding="utf-8", errors="replace") as told:
                text = told.read(500).strip()
            raise StartError(f"workspace {archive!r} cannot be unpacked: {text}", retryable=False)

    def spawn(self, request: dict) -> None:
        """Fork and exec; returns when the command runs, raises when it cannot."""
        environment = {
            **request["base"],
            "HOME": self.path("home"),
            "TMPDIR": self.path("tmp"),
            **request["env"],
            MARK: request["name"],
        }
        command = [word.replace("{directory}", self.directory) for word in request["wrap"]] + request["command"]
        self.wrapped = bool(request["wrap"])
        told, tell = os.pipe()
        output = os.open(self.path("output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.job = os.fork()
        if not self.job:
            try:
                self.become(request, command, environment, output)
            except OSError as error:
                os.write(tell, f"{error.errno} {error.strerror}".encode())
            except (ValueError, MemoryError) as error:
                os.write(tell, f"0 {error}".encode())
            os._exit(127)
        os.close(tell)
        os.close(output)
        with open(told, "rb") as pipe:
            trouble = pipe.read().decode()
        if trouble:
            os.waitpid(self.job, 0)
            number, _, text = trouble.partition(" ")
            retryable = int(number) in (errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE)
            raise StartError(f"{request['command'][0]!r} cannot be run: {text}", retryable=retryable)

    def become(self, request: dict, command: list, environment: dict, output: int) -> None:
        """In the child: be the job."""
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        os.chdir(self.path("work"))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        limits = {resource.RLIMIT_CORE: 0}
        if request["memory"]:
            limits[resource.RLIMIT_AS] = request["memory"]
        if request["pids"]:
            limits[resource.RLIMIT_NPROC] = request["pids"]
        for limit, value in limits.items():
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))
        if request["cpus"] and LINUX:
            allowed = sorted(os.sched_getaffinity(0))
            first = os.getpid() % len(allowed)
            chosen = (allowed + allowed)[first : first + max(1, -int(-request["cpus"] // 1))]
            os.sched_setaffinity(0, chosen)
        if self.wrapped:
            import shutil

            if not shutil.which(request["command"][0], path=environment["PATH"]):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvpe(command[0], command, environment)

    def wait(self) -> int:
        """The job's exit code, or minus its signal. Everything that lands on us meanwhile is reaped."""
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self.job:
                return os.waitstatus_to_exitcode(status)

    def on_term(self, *_: object) -> None:
        """Somebody wants an end: TERM to all, and KILL when the grace is over."""
        try:
            with open(self.path("grace"), encoding="ascii") as file:
                grace = float(file.read())
        except (OSError, ValueError):
            grace = 0.0
        if grace <= 0:
            self.on_alarm()
            return
        self.kill(signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, grace, 1.0)

    def on_alarm(self, *_: object) -> None:
        """Grace is over; again every second, should anything slip through."""
        self.kill(signal.SIGKILL)
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)

    def sweep(self) -> None:
        """A job's end is the end of its tree."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if LINUX or not descendants(os.getpid(), self.job):
                    return
            self.kill(signal.SIGKILL)
            time.sleep(0.002)

    def kill(self, number: int) -> None:
        """Signal every descendant. The sandbox around a job is spared from TERM: it would end the job before its grace."""
        spared = self.job if self.wrapped and number == signal.SIGTERM else 0
        for pid in descendants(os.getpid(), self.job):
            if pid == spared:
                continue
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue

    def path(self, name: str) -> str:
        """A file of this container."""
        return f"{self.directory}/{name}"

    def write(self, name: str, text: str) -> None:
        """Write a file as a whole or not at all."""
        with open(self.path(f"{name}.new"), "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(self.path(f"{name}.new"), self.path(name))


def descendants(root: int, job: int) -> list:
    """All processes below one, itself not among them. Where orphans do not come to us: the job's process group."""
    if not LINUX:
        return group(job)
    children: dict = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    stat = file.read()
            except OSError:
                continue
            fields = stat[stat.rindex(b")") + 2 :].split()
            if fields[0] not in (b"Z", b"X"):
                children.setdefault(int(fields[1]), []).append(int(name))
    found, look = [], [root]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += below
    return found


def group(job: int) -> list:
    """Processes in the group of the job, as `ps` tells them (macOS: no subreaper, no /proc)."""
    with os.popen("ps -axo pid=,pgid=") as table:
        rows = [line.split() for line in table]
    return [int(pid) for pid, leader in rows if int(leader) == job]


if __name__ == "__main__":
    launcher(socket.socket(fileno=int(sys.argv[1])))
