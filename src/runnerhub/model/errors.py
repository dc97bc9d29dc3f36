"""Every error that runnerhub raises on purpose.

```
RunnerHubError
├── ValidationError        bad input: names the field, the value and what was expected
│   └── ConfigurationError     the same, in a configuration
├── NotFoundError          no such job, runner, queue, ...
├── ConflictError          somebody else was first, or the state does not allow it
│   └── LeaseLostError         the lease has another owner now: stop working on it
├── UnavailableError       a backend does not answer, or is not configured
│   └── StorageFullError       no room on the disk: reads work, writes do not
├── SchemaError            the database's schema is newer than this runnerhub
├── ContainerStartError    a container could not be started; no user code ran
├── PluginError            a plugin does not load or offers something wrong
└── HubStateError          the hub is not open (or is closing)
```
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "ContainerStartError",
    "HubStateError",
    "LeaseLostError",
    "NotFoundError",
    "PluginError",
    "RunnerHubError",
    "SchemaError",
    "StorageFullError",
    "UnavailableError",
    "ValidationError",
]

_SHOWN = 80


def shown(value: object) -> str:
    """A value as an error shows it: short, printable, never more than a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


class RunnerHubError(Exception):
    """The root: catch it to catch everything that runnerhub raises on purpose."""


class ValidationError(RunnerHubError, ValueError):
    """Bad input. `field`, `value` and `expected` are for machines, the text for people."""

    def __init__(self, message: str, *, field: str, value: object = None, expected: str = "") -> None:
        self.message, self.field, self.value, self.expected = message, field, value, expected
        remedy = f"; expected {expected}" if expected else ""
        super().__init__(f"{field}: {message} (got {shown(value)}{remedy})")


class ConfigurationError(ValidationError):
    """Bad configuration: like `ValidationError`; `field` is the dotted key."""


class NotFoundError(RunnerHubError, LookupError):
    """There is no such thing. `kind` is what was looked for, `id` the name it was looked for by."""

    def __init__(self, kind: str, id: str) -> None:  # noqa: A002  (the API's word)
        self.kind, self.id = kind, id
        super().__init__(f"no {kind} {shown(id)}")


class ConflictError(RunnerHubError):
    """Somebody else was first, or the present state does not allow it. Nothing was changed."""


class LeaseLostError(ConflictError):
    """The lease expired or has a newer owner: whoever holds the old one must stop at once."""


class UnavailableError(RunnerHubError):
    """A backend does not answer or is not configured. Nothing was changed; trying again is safe."""


class StorageFullError(UnavailableError):
    """The disk of the storage is full. Reads go on working; writes do again once room is made."""


class SchemaError(RunnerHubError):
    """The database's schema does not fit this runnerhub; the text says which side to upgrade."""


class ContainerStartError(RunnerHubError):
    """A container did not start; no user code ran. `retryable` says whether trying again may help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        self.retryable = retryable
        super().__init__(message)


class PluginError(RunnerHubError):
    """A plugin does not load, misspells a hook, or offers a name that is taken."""


class HubStateError(RunnerHubError):
    """The hub is not open: use `async with Hub(...) as hub`."""
