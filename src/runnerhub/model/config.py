"""The configuration: frozen values, checked when built; unknown keys are an error that names the closest known one."""

from __future__ import annotations

import difflib
import os
import platform
import time
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from attrs import Attribute, field, fields, frozen, has

from runnerhub.model import check
from runnerhub.model.errors import ConfigurationError, ValidationError
from runnerhub.model.job import DEFAULT_TIMEOUT, LONGEST_TIMEOUT, Resources, command_words
from runnerhub.model.labels import LabelSet, checked, label_set

T = TypeVar("T")

ENVIRONMENT = "RUNNERHUB_"
_DAY = timedelta(days=1)


class Placement(StrEnum):
    """Which of several pools that fit gets the next runner."""

    PACK = "pack"
    SPREAD = "spread"
    LEAST_LOADED = "least_loaded"


def utc_now() -> datetime:
    """The time of day, aware, UTC."""
    return datetime.now(UTC)


@frozen(kw_only=True)
class BackendOptions:
    """What a factory of backends gets: its URL (where the configuration has one), its own settings, a private directory.

    `now` and `monotonic` are the hub's clock; `ageing` is how long a job waits before it moves up a priority level.
    """

    url: str = ""
    settings: Mapping[str, Any] = field(factory=dict, repr=False)
    data_dir: Path = field(factory=Path)
    hub: str = "hub"
    ageing: timedelta = timedelta(minutes=10)
    now: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic


def host_labels() -> tuple[str, ...]:
    """The labels that GitHub's own runner gives itself on this machine: `self-hosted`, the system, the architecture."""
    system = {"darwin": "macos"}.get(platform.system().lower(), platform.system().lower())
    machine = platform.machine().lower()
    architecture = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "i686": "x86"}.get(machine, machine)
    return ("self-hosted", system, architecture)


def _seconds(default: float, *, zero: bool = False, most: timedelta = 400 * _DAY) -> Any:
    def validate(_: object, attribute: Attribute[timedelta], value: timedelta) -> None:
        check.duration(value, attribute.name, most=most, zero=zero)

    def convert(value: object) -> object:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e10:
            return timedelta(seconds=value)
        return value

    return field(default=timedelta(seconds=default), converter=convert, validator=validate)


def _count(default: int | None, *, least: int = 0, most: int = 1_000_000) -> Any:
    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        if value is not None or default is not None:
            check.integer(value, attribute.name, least=least, most=most)

    return field(default=default, validator=validate)


def _text(default: str | None, *, longest: int = 4096) -> Any:
    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        if value is not None or default is not None:
            check.text(value, attribute.name, longest=longest, shortest=0)

    return field(default=default, validator=validate)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        raise ValidationError("Must be a list", field="repositories", value=value, expected="a list of owner/repo or owner/*")
    for index, name in enumerate(value):
        at = f"repositories[{index}]"
        check.repository(name[:-1] + "x" if isinstance(name, str) and name.endswith("/*") else name, at)
    return tuple(value)


@frozen(kw_only=True)
class PoolConfig:
    """A pool of runners that the hub starts itself: what they carry, where, and how many."""

    name: str = _text("default", longest=64)
    labels: tuple[str, ...] = field(factory=host_labels, converter=checked)
    containers: str | None = _text(None)
    """The container backend by name; `None`: the hub's."""
    image: str | None = _text(None)
    command: tuple[str, ...] | None = field(default=None, converter=command_words)
    """What a job without a command of its own runs."""
    env: Mapping[str, str] = field(factory=dict, converter=check.environment, repr=False)
    resources: Resources = field(factory=Resources)
    max_runners: int = _count(max(2, os.cpu_count() or 2), most=100_000)
    min_idle: int = _count(0, most=100_000)
    """Warm runners kept ready (where the backend can prepare them)."""
    repositories: tuple[str, ...] = field(default=(), converter=_names)
    """The only repositories allowed (`owner/repo`, `owner/*`); empty: all."""
    allow_image: bool = field(default=True)
    """Whether a job may name its own image."""
    bootstrap_timeout: timedelta = _seconds(300)
    idle_timeout: timedelta = _seconds(900)
    """A warm runner older than this is replaced."""
    job_timeout: timedelta = _seconds(DEFAULT_TIMEOUT.total_seconds(), most=LONGEST_TIMEOUT)

    def __attrs_post_init__(self) -> None:
        check.text(self.name, "name", longest=64)
        check.boolean(self.allow_image, "allow_image")
        if self.min_idle > self.max_runners:
            raise ValidationError(
                "More than max_runners", field="min_idle", value=self.min_idle, expected=f"at most {self.max_runners}"
            )

    @property
    def label_set(self) -> LabelSet:
        """The labels as matching sees them."""
        return label_set(self.labels)


def _pools(value: object) -> tuple[PoolConfig, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(pool, PoolConfig) for pool in value):
        raise ValidationError("Must be a list of pools", field="pools", value=value, expected="[[pools]] tables")
    names = [pool.name for pool in value]
    for name in names:
        if names.count(name) > 1:
            raise ValidationError("Two pools of one name", field="pools", value=name, expected="different names")
    return tuple(value)


def _weights(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValidationError("Must be a table", field="weights", value=value, expected="owner/repo = weight")
    return {
        check.repository(name, "weights"): check.number(weight, f"weights.{name}", least=0.001, most=1e6)
        for name, weight in value.items()
    }


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(check.text(str(value), "data_dir", longest=4096))


@frozen(kw_only=True)
class HubConfig:
    """How a hub works. Every default runs with no service installed.

    Durations are `timedelta`, or seconds as a number. `storage` is a backend's name (`memory`, `sqlite`) or a URL
    (`sqlite:///path/to/file.db`); `queue` likewise, `None`: the storage's own.
    """

    name: str = _text("hub", longest=64)
    data_dir: Path | None = field(default=None, converter=_path)
    storage: str = _text("sqlite")
    queue: str | None = _text(None)
    containers: str = _text("process")
    pools: tuple[PoolConfig, ...] = field(factory=lambda: (PoolConfig(),), converter=_pools)
    placement: Placement = field(default=Placement.PACK)
    settings: Mapping[str, Mapping[str, Any]] = field(factory=dict, repr=False)
    """Settings of backends, by backend name."""

    max_jobs: int | None = _count(None, least=1)
    """Jobs at once in the whole hub."""
    max_jobs_per_repository: int | None = _count(None, least=1)
    weights: Mapping[str, float] = field(factory=dict, converter=_weights)
    """Shares of repositories; 1 unless set."""

    ageing: timedelta = _seconds(600)
    """A job that waits this long moves up a priority level."""
    cancel_grace: timedelta = _seconds(15, zero=True)
    drain_timeout: timedelta = _seconds(60, zero=True)
    lease_ttl: timedelta = _seconds(15)
    heartbeat_timeout: timedelta = _seconds(90)
    """A registered runner that is silent this long is offline."""
    lost_after: timedelta = _seconds(300)
    """The job of a runner that is offline this long counts as interrupted."""
    reap_interval: timedelta = _seconds(30)
    poll_interval: timedelta = _seconds(1)
    """How often a hub looks for what other processes wrote."""
    max_interruptions: int = _count(3, least=1, most=100)
    start_backoff: timedelta = _seconds(5)
    """First pause of a pool after two failed starts in a row; doubles up to `start_backoff_most`."""
    start_backoff_most: timedelta = _seconds(80)

    max_log_bytes: int = _count(64 * 1024 * 1024, least=1024, most=2**40)
    """A job's log is cut here, and says so."""
    keep_jobs: timedelta = _seconds(90 * 86400)
    keep_logs: timedelta = _seconds(30 * 86400)
    keep_events: timedelta = _seconds(7 * 86400)

    def __attrs_post_init__(self) -> None:
        check.text(self.name, "name", longest=64)
        object.__setattr__(self, "placement", check.choice(self.placement, "placement", Placement))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> HubConfig:
        """From plain tables, as TOML gives them. Raises `ConfigurationError` with the dotted key."""
        return _build(cls, mapping, "")

    @classmethod
    def from_toml(cls, path: Path | str, environ: Mapping[str, str] | None = None) -> HubConfig:
        """From a TOML file; what the environment sets (`RUNNERHUB_…`) fills only what the file leaves out."""
        try:
            tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                f"Cannot be read ({error.strerror})", field="config", value=str(path), expected="a readable TOML file"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"Not TOML ({error})", field="config", value=str(path), expected="TOML") from error
        return cls.from_mapping({**_environment(environ), **tables})

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> HubConfig:
        """From the environment: the file of `RUNNERHUB_CONFIG`, and `RUNNERHUB_STORAGE_URL`, `_CONTAINERS`, `_DATA_DIR`."""
        environ = os.environ if environ is None else environ
        if path := environ.get(ENVIRONMENT + "CONFIG"):
            return cls.from_toml(path, environ)
        return cls.from_mapping(_environment(environ))


_VARIABLES = {"STORAGE_URL": "storage", "QUEUE_URL": "queue", "CONTAINERS": "containers", "DATA_DIR": "data_dir"}


def _environment(environ: Mapping[str, str] | None) -> dict[str, str]:
    environ = os.environ if environ is None else environ
    return {key: environ[ENVIRONMENT + name] for name, key in _VARIABLES.items() if environ.get(ENVIRONMENT + name)}


def _build(cls: type[T], mapping: object, at: str) -> T:
    if not isinstance(mapping, Mapping):
        raise ConfigurationError("Must be a table", field=at or "config", value=mapping, expected="a table")
    known = {attribute.name: attribute for attribute in fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in mapping.items():
        key = f"{at}.{name}" if at else str(name)
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"{close[0]!r}" if close else f"one of {', '.join(known)}"
            raise ConfigurationError("Unknown key", field=key, value=name, expected=hint)
        values[name] = _nested(hints[name], value, key)
    try:
        return cls(**values)
    except ConfigurationError:
        raise
    except ValidationError as error:
        dotted = _dotted(at, error.field)
        raise ConfigurationError(error.message, field=dotted, value=error.value, expected=error.expected) from error
    except TypeError as error:
        raise ConfigurationError("Wrong type", field=at or "config", value="…", expected=str(error)) from error


def _dotted(at: str, field_name: str) -> str:
    """A field's key in the file; what a table's own checks say of its name is not said twice."""
    if not at or field_name.startswith(f"{at}."):
        return field_name
    own = at.rpartition(".")[2]
    return f"{at}.{field_name.removeprefix(f'{own}.')}"


def _nested(hint: Any, value: object, key: str) -> object:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and has(option):
            return value if isinstance(value, option) else _build(option, value, key)
        if typing.get_origin(option) is tuple and has(typing.get_args(option)[0]):
            if not isinstance(value, (list, tuple)):
                raise ConfigurationError("Must be a list of tables", field=key, value=value, expected=f"[[{key}]]")
            kind = typing.get_args(option)[0]
            return tuple(item if isinstance(item, kind) else _build(kind, item, f"{key}[{i}]") for i, item in enumerate(value))
        if option is Path and not isinstance(value, (str, Path)):
            raise ConfigurationError("Must be a path", field=key, value=value, expected="a path")
    return value
