"""Plugins: found, refused by name when broken, and asked in order."""

from __future__ import annotations

import types
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from attrs import evolve

from runnerhub import hookimpl
from runnerhub.engine import plugins
from runnerhub.engine.plugins import Plugins
from runnerhub.model import lifecycle
from runnerhub.model.config import BackendOptions
from runnerhub.model.container import ContainerSpec
from runnerhub.model.errors import ConfigurationError, PluginError, UnavailableError
from runnerhub.model.job import JobRequest

OPTIONS = BackendOptions()
JOB = lifecycle.create(
    JobRequest(repository="octo/app", job_name="build"),
    job_id="job_1",
    delegation_id="del_1",
    now=datetime(2026, 1, 1, tzinfo=UTC),
)[0]
SPEC = ContainerSpec(name="rh-1", command=("true",))


def plugin(**hooks: Callable[..., object]) -> types.SimpleNamespace:
    return types.SimpleNamespace(__name__="mine", **{name: hookimpl(function) for name, function in hooks.items()})


def _nothing() -> dict[str, object]:
    return {}


def offer(names: dict[str, object]) -> types.SimpleNamespace:
    return plugin(runnerhub_container_backends=lambda: names)


def test_built_in_backends_come_through_the_same_door() -> None:
    found = Plugins(installed=False)
    assert {"memory", "sqlite"} <= set(found.names("storage"))
    assert "memory" in found.names("queue")
    assert "process" in found.names("container")
    assert found.plugins() == []


def test_a_factory_or_a_path_makes_a_backend() -> None:
    made = Plugins([offer({"mine": lambda options: (options, "made")})], installed=False)
    assert made.containers("mine", OPTIONS) == (OPTIONS, "made")
    path = Plugins([offer({"mine": "builtins:repr"})], installed=False)
    assert path.containers("mine", OPTIONS) == repr(OPTIONS)


def test_an_unknown_name_says_what_is_known_and_what_is_close() -> None:
    with pytest.raises(ConfigurationError, match=r"containers: .*'proces'.*expected 'process' \(known: .*process"):
        Plugins(installed=False).containers("proces", OPTIONS)
    with pytest.raises(ConfigurationError, match=r"storage: .*one of memory, sqlite"):
        Plugins(installed=False).storage("qqqq://x", OPTIONS)


def test_a_missing_package_says_how_to_install_it() -> None:
    found = Plugins([offer({"mine": "surely_missing.backend:Thing"})], installed=False)
    with pytest.raises(UnavailableError, match=r"'mine' needs the package 'surely_missing': install surely_missing"):
        found.containers("mine", OPTIONS)


def test_a_path_that_leads_nowhere_names_the_plugin() -> None:
    found = Plugins([offer({"mine": "json:nothing"})], installed=False)
    with pytest.raises(PluginError, match="'mine' of plugin 'mine' cannot be imported"):
        found.containers("mine", OPTIONS)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda: [offer({"process": repr})], "'process' is offered by both 'built-in' and 'mine'"),
        (lambda: [offer([])], "must return a mapping"),  # type: ignore[arg-type]
        (lambda: [plugin(runnerhub_container_backend=_nothing)], "runnerhub_container_backends"),
        (lambda: [offer({})] * 2, "registered twice"),
        (lambda: [plugin(runnerhub_filter_runner_spec=lambda wrong: wrong)], "does not fit"),
    ],
)
def test_a_broken_plugin_is_refused_by_name(broken: Callable[[], list[object]], told: str) -> None:
    with pytest.raises(PluginError, match=told):
        Plugins(broken(), installed=False)


def test_an_installed_plugin_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="theirs", value="surely_missing:plugin", group="runnerhub")
    monkeypatch.setattr(plugins, "entry_points", lambda **_: EntryPoints([entry]))
    with pytest.raises(PluginError, match="'theirs' does not load: ModuleNotFoundError"):
        Plugins()


def test_specs_are_filtered_in_order_and_checked() -> None:
    first = plugin(runnerhub_filter_runner_spec=lambda spec: evolve(spec, env={**spec.env, "A": "1"}))
    second = plugin(runnerhub_filter_runner_spec=lambda spec, job: evolve(spec, env={**spec.env, "B": job.id}))
    neither = plugin(runnerhub_filter_runner_spec=lambda: None)
    for number, one in enumerate((first, second, neither)):
        one.__name__ = f"mine-{number}"
    changed = Plugins([first, neither, second], installed=False).filter_runner_spec(SPEC, JOB)
    assert changed.env == {"A": "1", "B": "job_1"}


@pytest.mark.parametrize(
    "wrong", [lambda: 3, lambda spec: evolve(spec, name="other"), lambda spec: spec.nothing], ids=["type", "name", "raises"]
)
def test_a_filter_that_misbehaves_is_named(wrong: Callable[..., object]) -> None:
    with pytest.raises(PluginError, match="plugin 'mine'"):
        Plugins([plugin(runnerhub_filter_runner_spec=wrong)], installed=False).filter_runner_spec(SPEC, JOB)


def test_subscribers_of_all_plugins_are_found() -> None:
    async def hear(event: object) -> None:
        """Hear it."""

    assert Plugins([plugin(runnerhub_subscribers=lambda: [hear])], installed=False).subscribers() == [hear]
