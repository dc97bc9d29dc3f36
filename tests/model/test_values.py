"""Labels, ids, logs, configuration and the words of errors."""

from __future__ import annotations

import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub import ConfigurationError, Event, HubConfig, JobRequest, NotFoundError, Placement, PoolConfig, Priority
from runnerhub.events import JobQueued
from runnerhub.model import labels, log
from runnerhub.model.config import host_labels
from runnerhub.model.errors import shown
from runnerhub.model.ids import Ids
from runnerhub.model.queue import Wanted
from runnerhub.model.runner import Capabilities, Runner, RunnerKind, RunnerStatus
from runnerhub.model.status import PoolStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LABEL = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)


@given(st.frozensets(LABEL, max_size=5), st.frozensets(LABEL, max_size=5))
def test_labels_fit_whatever_their_case(asked: frozenset[str], more: frozenset[str]) -> None:
    offered = labels.label_set([*(label.upper() for label in asked), *more, "self-hosted"])
    assert labels.fits(labels.label_set([*asked, "Self-Hosted"]), offered)
    assert labels.from_key(labels.key(offered)) == offered


def test_labels_keep_their_order_and_lose_repeats() -> None:
    assert labels.checked(["Linux", "gpu", "LINUX"]) == ("Linux", "gpu")
    assert labels.checked({"b", "a"}) == ("a", "b")
    assert labels.from_key("") == frozenset()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_ids_sort_as_they_were_made(steps: list[int]) -> None:
    ids, now, made = Ids(Random(1)), NOW, []
    for step in steps:
        now += timedelta(milliseconds=step)
        made.append(ids.new("job", now))
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    earlier = ids.new("job", NOW - timedelta(days=1))
    assert earlier > made[-1]
    assert earlier.startswith("job_")


@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\n", b" ")), min_size=1, max_size=20), st.integers(0, 25)
)
def test_lines_come_out_of_a_chunk_as_they_went_in(lines: list[bytes], after: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    chunk = log.LogChunk(2, 11, len(lines), len(data), ((0, 5.0), (3, 6.0)), "outer", log.pack(data), "")
    found = log.unpack_all([chunk], 10 + after)
    assert [line.text for line in found] == [line.rstrip(b"\r").decode("utf-8", "replace") for line in lines[after:]]
    assert [line.number for line in found] == list(range(11 + after, 11 + len(lines)))
    assert all(line.at.timestamp() == (5.0 if line.number < 14 else 6.0) for line in found)
    assert all(line.attempt == 2 for line in found)


def test_levels_and_steps_are_read_from_workflow_commands() -> None:
    data = b"plain\n::group::Build it\n::error::bad\n##[warning]hm\n##[endgroup]\n::debug::x\n##[group]\n::notice::n\n"
    chunk = log.LogChunk(1, 1, 8, len(data), ((0, 1.0),), "before", log.pack(data), "")
    assert [(line.level.value, line.step) for line in log.unpack(chunk)] == [
        ("info", "before"),
        ("info", "Build it"),
        ("error", "Build it"),
        ("warning", "Build it"),
        ("info", None),
        ("debug", None),
        ("info", None),
        ("info", None),
    ]
    assert log.step_after("before", b"nothing\n") == "before"
    assert log.step_after("before", b"a group of words\n") == "before"
    assert log.step_after("before", b"::group::A\n::endgroup::\n") is None
    assert log.step_after(None, b"::endgroup::\n::group::B\nx\n") == "B"
    assert next(log.unpack(log.LogChunk(1, 1, 1, 1, (), None, log.pack(b"x\n"), ""))).at.year == 1970


def test_configuration_comes_from_a_file_over_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(
        'storage = "memory"\nageing = 5\n[[pools]]\nname = "a"\nlabels = ["x"]\nresources = { cpus = 2 }\n'
        'env = { TOKEN = "s3cret" }\n'
        '[weights]\n"octo/app" = 2\n[settings.process]\nsandbox = "none"\n'
    )
    environ = {"RUNNERHUB_STORAGE_URL": "sqlite", "RUNNERHUB_DATA_DIR": "/data", "RUNNERHUB_CONTAINERS": "docker", "OTHER": "x"}
    config = HubConfig.from_toml(path, environ)
    assert (config.storage, config.containers, config.data_dir) == ("memory", "docker", Path("/data"))
    assert (config.ageing, config.weights, config.settings) == (
        timedelta(seconds=5),
        {"octo/app": 2.0},
        {"process": {"sandbox": "none"}},
    )
    assert config.pools[0].resources.cpus == 2
    assert "s3cret" not in repr(config)
    assert HubConfig.from_env({**environ, "RUNNERHUB_CONFIG": str(path)}) == config
    assert HubConfig.from_env(environ).storage == "sqlite"
    assert HubConfig.from_env({}) == HubConfig()
    (tmp_path / "broken.toml").write_text("x = ")
    with pytest.raises(ConfigurationError, match="Not TOML"):
        HubConfig.from_toml(tmp_path / "broken.toml")
    assert HubConfig(placement="spread").placement is Placement.SPREAD  # type: ignore[arg-type]
    assert HubConfig.from_mapping({"pools": [PoolConfig(name="mine")]}).pools[0].name == "mine"
    assert HubConfig.from_mapping({"max_jobs": None}).max_jobs is None


def test_this_machine_s_labels_are_those_of_github_s_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert host_labels() == ("self-hosted", "macos", "arm64")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert host_labels()[2] == "riscv64"


def test_a_request_normalises_what_it_is_given() -> None:
    request = JobRequest(
        repository="octo/app",
        job_name="a",
        command="make test",
        priority="low",  # type: ignore[arg-type]
        timeout=90,  # type: ignore[arg-type]
        workspace="w.tar",  # type: ignore[arg-type]
    )
    assert request.command == ("/bin/sh", "-e", "-c", "make test")
    assert request.timeout == timedelta(seconds=90)
    assert (request.priority, request.priority.level, request.priority.queue) == (Priority.LOW, 2, "low-priority")
    assert request.workspace == Path("w.tar")
    assert "s3cret" not in repr(JobRequest(repository="octo/app", job_name="a", env={"TOKEN": "s3cret"}))


def test_an_event_of_a_newer_hub_is_still_an_event() -> None:
    newer = Event.of("JobTeleported", at=NOW, job_id="job_1")
    assert type(newer) is Event
    assert newer.numbered(3).sequence == 3
    assert Event.of("JobQueued", at=NOW) == JobQueued(at=NOW)
    assert JobQueued(at=NOW).kind == "JobQueued"


def test_a_value_in_an_error_is_short() -> None:
    assert shown("x") == "'x'"
    assert len(shown("x" * 1000)) < 120
    assert str(NotFoundError("job", "a\nb")) == "no job 'a\\nb'"


def test_who_may_take_whose_jobs() -> None:
    assert Wanted(labels=frozenset()).takes("octo/app")
    assert not Wanted(labels=frozenset(), exclude=frozenset({"octo/app"})).takes("octo/app")
    assert Wanted(labels=frozenset(), only=frozenset({"octo/*"})).takes("octo/app")
    assert not Wanted(labels=frozenset(), only=frozenset({"octo/*"})).takes("octopus/app")


def test_free_places_are_counted() -> None:
    runner = Runner(
        id="r",
        name="r",
        labels=("Linux",),
        kind=RunnerKind.REGISTERED,
        status=RunnerStatus.BUSY,
        created_at=NOW,
        jobs=("a",),
        capabilities=Capabilities(max_concurrent_jobs=3),
    )
    assert (runner.free_slots, runner.busy, runner.online, runner.label_set) == (2, True, True, {"linux"})
    for gone in (RunnerStatus.OFFLINE, RunnerStatus.STOPPING):
        assert Runner(id="r", name="r", labels=(), kind=runner.kind, status=gone, created_at=NOW).free_slots == 0
    assert PoolStatus(name="p", labels=(), max_runners=3, busy=1, starting=1).free == 1
