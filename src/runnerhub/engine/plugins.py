"""The one caller of hooks: finds plugins, refuses broken ones by name, and makes what they offer."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

import pluggy

from runnerhub import hookspecs
from runnerhub.hookspecs import PROJECT, Subscriber
from runnerhub.model.config import BackendOptions
from runnerhub.model.container import ContainerSpec
from runnerhub.model.errors import ConfigurationError, PluginError, UnavailableError
from runnerhub.model.job import Job
from runnerhub.protocols import ContainerBackend, ImageScanner, QueueBackend, SecretRules, StorageBackend

BUILT_IN = "runnerhub.backends"
KINDS = {
    "storage": "runnerhub_storage_backends",
    "queue": "runnerhub_queue_backends",
    "container": "runnerhub_container_backends",
    "image scanner": "runnerhub_image_scanners",
    "secret rules": "runnerhub_secret_rules",
}
_EXTRAS = {"docker": "docker", "redis": "redis", "lightkube": "kubernetes", "psycopg": "postgres"}


class Plugins:
    """The plugins of one hub: the built-in ones, the installed ones (entry-point group `runnerhub`), and given objects."""

    def __init__(self, given: Iterable[object] = (), *, installed: bool = True) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._register(importlib.import_module(BUILT_IN), "built-in")
        if installed:
            self._load_installed()
        for plugin in given:
            self._register(plugin, getattr(plugin, "__name__", type(plugin).__name__))
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"{error}; the hooks are {', '.join(self.hooks())}") from error
        self._offers = {kind: self._collect(hook) for kind, hook in KINDS.items()}

    @staticmethod
    def hooks() -> list[str]:
        """The names of all hooks."""
        return sorted(name for name in vars(hookspecs) if name.startswith("runnerhub_"))

    def names(self, kind: str) -> list[str]:
        """What is offered of a kind (a key of `KINDS`), sorted."""
        return sorted(self._offers[kind])

    def plugins(self) -> list[str]:
        """The names of all plugins but the built-in one."""
        return sorted(name for name, _ in self._manager.list_name_plugin() if name != "built-in")

    def storage(self, url: str, options: BackendOptions) -> StorageBackend:
        """The storage of a name or URL, not opened yet."""
        backend: StorageBackend = self.factory("storage", url.partition(":")[0], "storage")(options)
        return backend

    def queue(self, url: str, options: BackendOptions) -> QueueBackend:
        """The queue of a name or URL, not opened yet."""
        backend: QueueBackend = self.factory("queue", url.partition(":")[0], "queue")(options)
        return backend

    def containers(self, name: str, options: BackendOptions, field: str = "containers") -> ContainerBackend:
        """The container backend of a name, not opened yet."""
        backend: ContainerBackend = self.factory("container", name, field)(options)
        return backend

    def image_scanners(self, options: BackendOptions) -> dict[str, ImageScanner]:
        """All image scanners."""
        return {name: self.factory("image scanner", name, "scanner")(options) for name in self.names("image scanner")}

    def secret_rules(self) -> dict[str, SecretRules]:
        """All rules for secrets."""
        return {name: self.factory("secret rules", name, "scanner")() for name in self.names("secret rules")}

    def subscribers(self) -> list[Subscriber]:
        """Everybody who wants all events."""
        return [one for several in self._manager.hook.runnerhub_subscribers() for one in several or ()]

    def filter_runner_spec(self, spec: ContainerSpec, job: Job) -> ContainerSpec:
        """What is started, after every plugin had its say in the order of registration."""
        for implementation in self._manager.hook.runnerhub_filter_runner_spec.get_hookimpls():
            arguments = {"spec": spec, "job": job}
            try:
                changed = implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except Exception as error:
                raise PluginError(
                    f"plugin {implementation.plugin_name!r} failed in runnerhub_filter_runner_spec: {error}"
                ) from error
            if changed is None:
                continue
            if not isinstance(changed, ContainerSpec) or changed.name != spec.name:
                raise PluginError(
                    f"plugin {implementation.plugin_name!r} must return a ContainerSpec of the same name, or None"
                )
            spec = changed
        return spec

    def factory(self, kind: str, name: str, field: str) -> Callable[..., Any]:
        """What makes a backend. `ConfigurationError` for an unknown name, `UnavailableError` when its package is missing."""
        offers = self._offers[kind]
        if name not in offers:
            known = ", ".join(sorted(offers)) or "none"
            close = difflib.get_close_matches(name, offers, n=1)
            hint = f"{close[0]!r} (known: {known})" if close else f"one of {known}"
            raise ConfigurationError(f"No {kind} backend of this name", field=field, value=name, expected=hint)
        made, plugin = offers[name]
        return self._imported(made, name, kind, plugin) if isinstance(made, str) else made

    @staticmethod
    def _imported(path: str, name: str, kind: str, plugin: str) -> Callable[..., Any]:
        module, _, attribute = path.partition(":")
        try:
            found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            package = (error.name or module).partition(".")[0]
            extra = _EXTRAS.get(package)
            remedy = f"pip install 'runnerhub[{extra}]'" if extra else f"install {package}"
            raise UnavailableError(f"{kind} backend {name!r} needs the package {package!r}: {remedy}") from error
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{kind} backend {name!r} of plugin {plugin!r} cannot be imported: {error}") from error
        return found

    def _register(self, plugin: object, name: str) -> None:
        try:
            self._manager.register(plugin, name)
        except ValueError as error:
            raise PluginError(f"plugin {name!r} is registered twice") from error
        except pluggy.PluginValidationError as error:
            raise PluginError(f"plugin {name!r} does not fit: {error}") from error

    def _load_installed(self) -> None:
        for entry in entry_points(group=PROJECT):
            owner = f"{entry.name} ({entry.dist.name})" if entry.dist else entry.name
            try:
                plugin = entry.load()
            except Exception as error:
                raise PluginError(
                    f"plugin {owner!r} does not load: {type(error).__name__}: {error}; uninstall or fix it"
                ) from error
            self._register(plugin, owner)

    def _collect(self, hook: str) -> dict[str, tuple[Any, str]]:
        offers: dict[str, tuple[Any, str]] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            found = implementation.function()
            if not isinstance(found, Mapping):
                raise PluginError(f"plugin {implementation.plugin_name!r}: {hook} must return a mapping of names to factories")
            for name, made in found.items():
                if name in offers:
                    raise PluginError(
                        f"{hook}: {name!r} is offered by both {offers[name][1]!r} and "
                        f"{implementation.plugin_name!r}; remove one"
                    )
                offers[name] = made, implementation.plugin_name
        return offers
