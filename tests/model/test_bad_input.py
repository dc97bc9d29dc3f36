"""Bad input gets an error that names the field and the remedy, and never repeats a secret."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runnerhub import ConfigurationError, HubConfig, JobQuery, JobRequest, PoolConfig, Resources, ValidationError
from runnerhub.cli import jobsfile
from runnerhub.model.labels import checked


def job(**more: Any) -> Callable[[], object]:
    return lambda: JobRequest(**{"repository": "octo/app", "job_name": "build", **more})


def config(**more: Any) -> Callable[[], object]:
    return lambda: HubConfig.from_mapping(more)


DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]

CASES: list[tuple[str, Callable[[], object], str, str]] = [
    # what, how, field, remedy
    ("repository without owner", job(repository="app"), "repository", "owner/repo format"),
    ("repository with blanks", job(repository="octo/my app"), "repository", "owner/repo"),
    ("repository that climbs", job(repository="octo/.."), "repository", "owner/repo"),
    ("repository with a line feed", job(repository="octo/app\n"), "repository", "owner/repo"),
    ("repository of the wrong type", job(repository=7), "repository", "owner/repo"),
    ("no name", job(job_name=""), "job_name", "1 to 256 characters"),
    ("NUL in a name", job(job_name="a\0b"), "job_name", "without NUL"),
    ("lone surrogate in a name", job(job_name="a\ud800"), "job_name", "lone surrogates"),
    ("a huge name", job(job_name="x" * 10**6), "job_name", "1 to 256 characters"),
    ("labels as a string", job(labels="linux"), "labels", "a list of labels"),
    ("a label with a comma", job(labels=["a,b"]), "labels[0]", "no commas"),
    ("a label with NUL", job(labels=["ok", "a\0"]), "labels[1]", "without NUL"),
    ("an empty label", job(labels=[""]), "labels[0]", "1 to 256"),
    ("a label that is a number", job(labels=[3]), "labels[0]", "a string"),
    ("too many labels", job(labels=[str(n) for n in range(101)]), "labels", "at most 100"),
    ("missing command", job(command=[]), "command", "non-empty list"),
    ("a command without a program", job(command=["", "x"]), "command[0]", "a program to run"),
    ("a command of numbers", job(command=["echo", 3]), "command[1]", "a string"),
    ("a command of the wrong type", job(command={"a": 1}), "command", "list of strings"),
    ("an endless command", job(command=["x" * 1000] * 1000), "command", "at most 131072"),
    ("an image that is an option", job(image="--privileged"), "image", "name[:tag]"),
    ("an image with blanks", job(image="a b"), "image", "name[:tag]"),
    ("a variable with a bad name", job(env={"A B": "x"}), "env", "[A-Za-z_]"),
    ("a variable that is no string", job(env={"A": 3}), "env.A", "a string"),
    ("a variable with NUL", job(env={"TOKEN": "s3cret\0"}), "env.TOKEN", "plain text"),
    ("too much environment", job(env={"TOKEN": "s3cret" * 100_000}), "env", "at most 131072 bytes"),
    ("an environment that is a list", job(env=["A=s3cret"]), "env", "names to strings"),
    ("no time", job(timeout=timedelta(0)), "timeout", "more than 0"),
    ("negative time", job(timeout=-1), "timeout", "0 to"),
    ("endless time", job(timeout=timedelta(days=36)), "timeout", "at most 35 days"),
    ("not a time", job(timeout=float("nan")), "timeout", "0 to"),
    ("time as text", job(timeout="1h"), "timeout", "timedelta or seconds"),
    ("unknown priority", job(priority="urgent"), "priority", "high, normal, low"),
    ("metadata that is no JSON", job(metadata={"a": {1, 2}}), "metadata", "JSON object"),
    ("metadata without end", job(metadata={"a": DEEP}), "metadata", "JSON object"),
    ("metadata with NUL", job(metadata={"a": ["x\0"]}), "metadata", "without NUL"),
    ("metadata with a lone surrogate", job(metadata={"a\udfff": 1}), "metadata", "lone surrogates"),
    ("metadata that is not a number", job(metadata={"a": float("inf")}), "metadata", "JSON object"),
    ("huge metadata", job(metadata={"a": "x" * 70_000}), "metadata", "at most 65536"),
    ("metadata that is a list", job(metadata=[1]), "metadata", "JSON object"),
    ("resources of the wrong type", job(resources={"cpus": 1}), "resources", "Resources"),
    ("a GitHub id that is true", job(github_job_id=True), "github_job_id", "whole number"),
    ("a GitHub id below one", job(github_job_id=0), "github_job_id", "1 to"),
    ("a negative delay", job(delay=-5), "delay", "0 to"),
    ("no processors", lambda: Resources(cpus=0), "resources.cpus", "0.01 to"),
    ("memory as text", lambda: Resources(memory_mb="1g"), "resources.memory_mb", "whole number"),  # type: ignore[arg-type]
    ("too many pids", lambda: Resources(pids=10**9), "resources.pids", "1 to"),
    ("too many rows", lambda: JobQuery(limit=1001), "limit", "1 to 1000"),
    ("an unknown sort", lambda: JobQuery(sort="name; drop table jobs"), "sort", "one of created_at"),
    ("labels in a set of mixed", lambda: checked(3), "labels", "a list"),
    ("unknown key", config(storag="memory"), "storag", "'storage'"),
    ("unknown key far from all", config(xyzzy=1), "xyzzy", "one of name"),
    ("unknown key of a pool", config(pools=[{"name": "a"}, {"max_runner": 3}]), "pools[1].max_runner", "'max_runners'"),
    ("unknown key of resources", config(pools=[{"resources": {"cpu": 1}}]), "pools[0].resources.cpu", "'cpus'"),
    ("bad resources of a pool", config(pools=[{"resources": {"cpus": -1}}]), "pools[0].resources.cpus", "0.01 to"),
    ("a pool that is a string", config(pools=["a"]), "pools[0]", "a table"),
    ("pools that are a table", config(pools={"name": "a"}), "pools", "[[pools]]"),
    ("two pools of one name", config(pools=[{"name": "a"}, {"name": "a"}]), "pools", "different names"),
    ("more idle than there may be", config(pools=[{"min_idle": 3, "max_runners": 2}]), "pools[0].min_idle", "at most 2"),
    ("a label of a pool", config(pools=[{"labels": ["a,b"]}]), "pools[0].labels[0]", "no commas"),
    ("a repository of a pool", config(pools=[{"repositories": ["app"]}]), "pools[0].repositories[0]", "owner/repo"),
    ("repositories as a string", config(pools=[{"repositories": "octo/app"}]), "pools[0].repositories", "a list"),
    ("a truth that is a word", config(pools=[{"allow_image": "yes"}]), "pools[0].allow_image", "true or false"),
    ("an unknown placement", config(placement="best"), "placement", "pack, spread, least_loaded"),
    ("a negative duration", config(ageing=-1), "ageing", "0 to"),
    ("a duration in words", config(lease_ttl="15s"), "lease_ttl", "seconds"),
    ("a number that is true", config(max_jobs=True), "max_jobs", "whole number"),
    ("a number that is too large", config(max_log_bytes=2**60), "max_log_bytes", "1024 to"),
    ("a weight that is zero", config(weights={"octo/app": 0}), "weights.octo/app", "0.001 to"),
    ("a weight of nobody", config(weights={"app": 1}), "weights", "owner/repo"),
    ("weights that are a list", config(weights=[1]), "weights", "owner/repo = weight"),
    ("a name with NUL", config(name="a\0"), "name", "without NUL"),
    ("a directory that is a number", config(data_dir=3), "data_dir", "a path"),
    ("no table at all", lambda: HubConfig.from_mapping([1]), "config", "a table"),  # type: ignore[arg-type]
    ("a file that is not there", lambda: HubConfig.from_toml("/nonesuch.toml"), "config", "readable TOML"),
    ("a pool's bad timeout", lambda: PoolConfig(bootstrap_timeout=0), "bootstrap_timeout", "more than 0"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("how", "field", "remedy"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_the_field_and_the_remedy_are_named(how: Callable[[], object], field: str, remedy: str) -> None:
    with pytest.raises(ValidationError) as caught:
        how()
    error = caught.value
    assert error.field == field
    assert remedy in str(error)
    assert str(error).startswith(f"{field}: ")
    assert "s3cret" not in str(error)
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        ("", "jobs", "at least one"),
        ("jobs = 3", "jobs", "at least one"),
        ("x =", "jobs file", "TOML"),
        ("[[job]]\nname='a'", "job", "'jobs'"),
        ("[[jobs]]\ncommand='a'", "jobs[0].name", "a string"),
        ("[[jobs]]\nname='a'", "jobs[0].command", "list of words"),
        ("[[jobs]]\nname='a'\ncommand=[]", "jobs[0].command", "non-empty"),
        ("[[jobs]]\nname='a'\ncomand='x'", "jobs[0].comand", "'command'"),
        ("[[jobs]]\nname='a'\ncommand='x'\nneeds='b'", "jobs[0].needs", "names of jobs"),
        ("[[jobs]]\nname='a'\ncommand='x'\nneeds=['b']", "a.needs", "one of a"),
        ("[[jobs]]\nname='build'\ncommand='x'\nneeds=['biuld']", "build.needs", "'build'"),
        ("[[jobs]]\nname='a'\ncommand='x'\nneeds=['a']", "needs", "no circle"),
        ("[[jobs]]\nname='a'\ncommand='x'\n[[jobs]]\nname='a'\ncommand='x'", "name", "different names"),
        ("[[jobs]]\nname='a'\ncommand='x'\ntimeout_minutes='1'", "jobs[0].timeout_minutes", "a number"),
        ("[[jobs]]\nname='a'\ncommand='x'\ntimeout_minutes=1e9", "jobs[0].timeout_minutes", "0.001 to"),
        ("[[jobs]]\nname='a'\ncommand='x'\nresources=3", "jobs[0].resources", "cpus, memory_mb, pids"),
        ("[[jobs]]\nname='a'\ncommand='x'\nresources={cpu=1}", "resources.cpu", "'cpus'"),
        ("[[jobs]]\nname='a'\ncommand='x'\nresources={cpus='1'}", "jobs[0].resources.cpus", "a number"),
        ("[[jobs]]\nname='a'\ncommand='x'\npriority='now'", "jobs[0].priority", "high, normal, low"),
        ("[[jobs]]\nname='a'\ncommand='x'\nenv={A=1}", "jobs[0].env.A", "a string"),
    ],
)
def test_a_jobs_file_names_the_key(tmp_path: Path, text: str, field: str, remedy: str) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        jobsfile.load(path, repository="local/x", workspace=None)
    assert caught.value.field.endswith(field)
    assert remedy in str(caught.value)


def test_a_jobs_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="jobs file: Cannot be read"):
        jobsfile.load(tmp_path / "none.toml", repository="local/x", workspace=None)
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="jobs file: Not TOML"):
        jobsfile.load(tmp_path / "latin.toml", repository="local/x", workspace=None)
