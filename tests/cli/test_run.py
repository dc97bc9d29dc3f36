"""`runnerhub run` as somebody at a terminal or in a pipe sees it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerhub.backends._process.box import marked

RUNNERHUB = [sys.executable, "-m", "runnerhub"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNNERHUB_")}
    return {
        **kept,
        "RUNNERHUB_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        (tmp_path / "cwd").mkdir(exist_ok=True)
        return subprocess.run(
            [*RUNNERHUB, *arguments],
            env=environment,
            cwd=cwd or tmp_path / "cwd",
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return call


def jobs_file(path: Path, *jobs: str) -> str:
    path.write_text("".join(f"[[jobs]]\n{job}\n" for job in jobs))
    return str(path)


def containers_left(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "data" / "process").iterdir()]


def test_a_command_that_fails(run: Run, tmp_path: Path) -> None:
    done = run("run", "--", "sh", "-c", "echo hello; exit 3")
    lines = done.stdout.splitlines()
    assert lines[0] == "hello"
    assert re.fullmatch(r"sh +failure +3 +\S+ +exit code 3", lines[-1])
    assert done.returncode == 1
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert containers_left(tmp_path) == []


def test_a_command_that_succeeds_in_a_copy_of_the_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "Makefile").write_text("all:\n\t@echo made > made; cat made\n")
    done = run("run", "--name", "build", "--env", "A=1", "make")
    assert done.stdout.splitlines()[0] == "made", done.stderr
    assert done.returncode == 0
    assert not (tmp_path / "cwd" / "made").exists()
    assert list((tmp_path / "data" / "workspaces").iterdir()) == []


def test_only_what_git_knows_is_copied(run: Run, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    for name in ("tracked", "new", "ignored", "gone"):
        (project / name).write_text(name)
    (project / ".gitignore").write_text("ignored\n")
    subprocess.run(["git", "-C", str(project), "add", "tracked", "gone"], check=True)
    (project / "gone").unlink()
    done = run("run", "--", "ls", "-A", cwd=project)
    assert done.stdout.split()[:3] == [".gitignore", "new", "tracked"]
    empty = run("run", "--no-workspace", "--", "ls", "-A", cwd=project)
    assert empty.stdout.splitlines()[0].startswith("job ")


def test_jobs_need_each_other(run: Run, tmp_path: Path) -> None:
    path = jobs_file(
        tmp_path / "jobs.toml",
        'name = "one"\ncommand = "echo first"\nrepository = "octo/app"',
        'name = "two"\ncommand = "echo second"\nneeds = ["one"]\npriority = "high"\nenv = { A = "x" }\ntimeout_minutes = 1',
        'name = "bad"\ncommand = "exit 5"\nneeds = ["two"]',
        'name = "never"\ncommand = "echo never"\nneeds = ["bad"]',
    )
    done = run("run", path)
    assert done.returncode == 1
    text = [line for line in done.stdout.splitlines() if " | " in line]
    assert text == ["one   | first", "two   | second"]
    table = done.stdout.splitlines()[-4:]
    assert [line.split()[:2] for line in table] == [
        ["one", "success"],
        ["two", "success"],
        ["bad", "failure"],
        ["never", "skipped"],
    ]
    assert "needs bad" in table[-1]


@pytest.mark.parametrize("keep_going", [False, True])
def test_after_a_failure_the_rest_waits_or_goes_on(run: Run, tmp_path: Path, *, keep_going: bool) -> None:
    path = jobs_file(
        tmp_path / "jobs.toml",
        'name = "bad"\ncommand = "sleep 0.3; false"',
        'name = "other"\ncommand = "true"\nneeds = ["slow"]',
        'name = "slow"\ncommand = "sleep 1"',
        'name = "queued"\ncommand = "true"\npriority = "low"',
    )
    done = run("run", "--max-runners", "2", *(["--keep-going"] if keep_going else []), path)
    assert done.returncode == 1
    results = dict(line.split()[:2] for line in done.stdout.splitlines()[-4:])
    if keep_going:
        assert results == {"bad": "failure", "other": "success", "slow": "success", "queued": "success"}
    else:
        assert results == {"bad": "failure", "other": "skipped", "slow": "success", "queued": "cancelled"}


def test_json_is_one_object_per_line(run: Run) -> None:
    done = run("run", "--json", "-e", "TOKEN=s3cret-value", "--", "sh", "-c", "echo hi; echo $TOKEN")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["text"] for one in objects if one["type"] == "log"] == ["hi", "***"]
    assert [one["kind"] if "kind" in one else one["event"] for one in objects if one["type"] == "event"][-1] == "JobCompleted"
    assert objects[-1] == {"type": "summary", "results": {"success": 1}}
    assert objects[-2]["job"]["request"]["env"] == ["TOKEN"]
    assert "s3cret" not in done.stdout


def test_control_codes_of_a_job_do_not_reach_a_pipe(run: Run) -> None:
    done = run("run", "--", "printf", r"\033[31mred\033[0m\033[2J\033]0;title\007 a\tb\rc\b\n")
    assert done.stdout.splitlines()[0] == "red a\tbc"


def test_a_label_that_nobody_has_is_said_at_once(run: Run) -> None:
    done = run("run", "--labels", "linux,quantum", "--", "true")
    assert done.returncode == 2
    assert "lacks quantum" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run",), "Missing argument"),
        (("run", "none.toml"), "jobs file: Cannot be read"),
        (("run", "--env", "1A=x", "--", "true"), "env: Bad variable name"),
        (("run", "--env", "SURELY_NOT_SET", "--", "true"), "env: Not in this environment"),
        (("run", "--repository", "nobody", "--", "true"), "repository: Invalid repository format"),
        (("run", "--timeout", "-1", "--", "true"), "timeout: Out of range"),
        (("run", "--storage", "sqlight:///x", "--", "true"), "storage: No storage backend"),
        (("run", "--containers", "proces", "--", "true"), "containers: No container backend"),
        (("run", "--config", "none.toml", "--", "true"), "config: Cannot be read"),
        (("run", "--priority", "urgent", "--", "true"), "Invalid value for '--priority'"),
        (("db", "upgrade", "--storage", "memory"), "no schema"),
        (("nonesuch",), "No such command"),
    ],
)
def test_mistakes_are_named_and_cost_two(run: Run, arguments: tuple[str, ...], told: str) -> None:
    done = run(*arguments)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_a_directory_that_cannot_be_written(run: Run, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment["RUNNERHUB_DATA_DIR"] = str(tmp_path / "file")
    for arguments in (("run", "--", "true"), ("run", "--no-workspace", "--", "true"), ("jobs",), ("db", "upgrade")):
        done = run(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith("error: "), (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_ctrl_c_cancels_cleanly(environment: dict[str, str], tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 9' TERM; (setsid sleep 600 &); echo up; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*RUNNERHUB, "run", "--no-workspace", "--", "sh", "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (name,) = containers_left(tmp_path)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "bye" in out
    assert "cancelled" in out.splitlines()[-1]
    assert marked(name) == []
    assert containers_left(tmp_path) == []


def test_a_second_ctrl_c_kills(environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*RUNNERHUB, "run", "--no-workspace", "--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 12
    assert containers_left(tmp_path) == []


def test_when_nobody_reads_any_more_it_ends_quietly(environment: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*RUNNERHUB, "run", "--no-workspace", "--", "sh", "-c", "while :; do echo line; sleep 0.01; done"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
    assert containers_left(tmp_path) == []


def test_on_a_terminal_there_is_a_live_view(environment: dict[str, str], tmp_path: Path) -> None:
    path = jobs_file(
        tmp_path / "jobs.toml", 'name = "one"\ncommand = "echo first; sleep 0.6"', 'name = "two"\ncommand = "exit 1"'
    )
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*RUNNERHUB, "run", "--no-workspace", "--keep-going", path],
        env={**environment, "TERM": "xterm", "COLUMNS": "100"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    assert process.wait(60) == 1
    text = seen.decode()
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "in_progress" in plain
    assert "first" in plain
    assert re.search(r"two +failure +1", plain)


def test_two_runs_on_one_storage(environment: dict[str, str], tmp_path: Path) -> None:
    command = [*RUNNERHUB, "run", "--no-workspace", "--", "sh", "-c", "sleep 0.5; echo done"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        out, _ = process.communicate(timeout=60)
        assert out.splitlines()[0] == "done"
        assert process.returncode == 0
    assert containers_left(tmp_path) == []


def test_what_ran_can_be_looked_at(run: Run) -> None:
    run("run", "--", "sh", "-c", "echo hello; exit 3")
    (row,) = [json.loads(line) for line in run("jobs", "--json").stdout.splitlines()]
    job_id = row["id"]
    assert run("jobs", "--status", "completed").stdout.splitlines()[1].split()[0] == job_id
    assert run("logs", job_id).stdout == "hello\n"
    assert run("logs", "-f", job_id[-6:]).stdout == "hello\n"
    assert json.loads(run("logs", "--json", job_id).stdout)["number"] == 1
    assert re.match(r"\d{4}-\d\d-\d\dT.* hello\n", run("logs", "-t", job_id).stdout)
    assert run("explain", job_id).stdout == "exited: exit code 3\n"
    assert json.loads(run("explain", "--json", job_id).stdout)["reason"] == "exited"
    assert run("runners").stdout.split() == ["id", "name", "kind", "status", "labels", "jobs"]
    again = run("retry", job_id).stdout.strip()
    assert run("explain", again).stdout.startswith("no_hub: ")
    assert "is cancelled" in run("cancel", "--why", "enough", again).stdout
    refused = run("cancel", again)
    assert (refused.returncode, refused.stderr[:11]) == (1, "error: job ")
    unknown = run("logs", "job_none")
    assert (unknown.returncode, unknown.stderr) == (1, "error: no job 'job_none'\n")
    assert run("db", "upgrade").stdout == "schema 0001: nothing to do\n"


def test_a_job_is_seen_and_ended_from_another_process(environment: dict[str, str], run: Run, tmp_path: Path) -> None:
    command = [*RUNNERHUB, "run", "--no-workspace", "--", "sh", "-c", "echo up; sleep 600"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (row,) = [json.loads(line) for line in run("jobs", "--json").stdout.splitlines()]
    assert row["status"] == "in_progress"
    assert run("explain", row["id"]).stdout.startswith("running: ")
    (runner,) = [json.loads(line) for line in run("runners", "--json").stdout.splitlines()]
    assert (runner["status"], runner["jobs"]) == ("busy", [row["id"]])
    assert "asked to end" in run("cancel", row["id"]).stdout
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled" in out


def test_the_doctor(run: Run) -> None:
    done = run("doctor", "--json")
    found = {one["check"]: one["verdict"] for one in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout
    assert {name: found[name] for name in ("python", "configuration", "storage", "containers process")} == dict.fromkeys(
        ("python", "configuration", "storage", "containers process"), "ok"
    )
    broken = run("doctor", "--storage", "sqlight")
    assert broken.returncode == 1
    assert re.search(r"^storage +fail +storage: No storage backend", broken.stdout, re.MULTILINE)
    assert run("--version").stdout.startswith("runnerhub, version ")
    assert "explain" in run("--help").stdout
