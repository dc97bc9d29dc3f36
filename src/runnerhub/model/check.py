"""Checks of values that come from outside; each names the field and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from runnerhub.model.errors import ValidationError

E = TypeVar("E")

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}\Z")

ENV_BYTES = 128 * 1024
METADATA_BYTES = 64 * 1024
MAX_INT = 2**53


def text(value: object, field: str, *, longest: int, shortest: int = 1) -> str:
    """A string of `shortest` to `longest` characters without NUL or lone surrogates (stores differ on both)."""
    if not isinstance(value, str):
        raise ValidationError("Must be a string", field=field, value=value, expected="a string")
    if not shortest <= len(value) <= longest:
        raise ValidationError(
            f"Must have {shortest} to {longest} characters",
            field=field,
            value=value,
            expected=f"{shortest} to {longest} characters",
        )
    if "\0" in value:
        raise ValidationError("Must not contain NUL", field=field, value=value, expected="text without NUL")
    if _SURROGATE.search(value):
        raise ValidationError("Must be valid Unicode", field=field, value=value, expected="text without lone surrogates")
    return value


def repository(value: object, field: str = "repository") -> str:
    """`owner/repo`, as GitHub allows it (`_` and `.` included)."""
    if not isinstance(value, str) or not _REPOSITORY.match(value) or value.endswith(("/.", "/..")):
        raise ValidationError("Invalid repository format", field=field, value=value, expected="owner/repo format")
    return value


def integer(value: object, field: str, *, least: int = 0, most: int = MAX_INT) -> int:
    """A whole number within bounds; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValidationError("Must be a whole number", field=field, value=value, expected="a whole number")
    if not least <= value <= most:
        raise ValidationError("Out of range", field=field, value=value, expected=f"{least} to {most}")
    return value


def number(value: object, field: str, *, least: float, most: float) -> float:
    """A finite number within bounds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValidationError("Must be a number", field=field, value=value, expected="a number")
    if not least <= value <= most:
        raise ValidationError("Out of range", field=field, value=value, expected=f"{least} to {most}")
    return float(value)


def duration(value: object, field: str, *, most: timedelta, zero: bool = False) -> timedelta:
    """A positive `timedelta` (or seconds as a number) of at most `most`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = number(value, field, least=0, most=most.total_seconds())
        value = timedelta(seconds=seconds)
    if not isinstance(value, timedelta):
        raise ValidationError("Must be a duration", field=field, value=value, expected="a timedelta or seconds")
    if not (timedelta(0) <= value <= most) or (not zero and not value):
        raise ValidationError("Out of range", field=field, value=value, expected=f"more than 0, at most {most}")
    return value


def boolean(value: object, field: str) -> bool:
    """True or false, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise ValidationError("Must be true or false", field=field, value=value, expected="true or false")
    return value


def choice(value: object, field: str, kind: type[E]) -> E:
    """A member of an enum, or its value."""
    try:
        return kind(value)  # type: ignore[call-arg]
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)  # type: ignore[attr-defined]
        raise ValidationError("Unknown value", field=field, value=value, expected=f"one of {known}") from None


def environment(value: object, field: str = "env") -> dict[str, str]:
    """Names and string values; the values are secrets as far as errors are concerned and never shown."""
    if not isinstance(value, Mapping):
        raise ValidationError("Must be a table", field=field, value=type(value).__name__, expected="names to strings")
    size = 0
    for name, content in value.items():
        if not isinstance(name, str) or not _ENV_NAME.match(name):
            raise ValidationError("Bad variable name", field=field, value=name, expected="[A-Za-z_][A-Za-z0-9_]*")
        if not isinstance(content, str):
            kind = type(content).__name__
            raise ValidationError("Must be a string", field=f"{field}.{name}", value=kind, expected="a string")
        if "\0" in content or _SURROGATE.search(content):
            raise ValidationError(
                "Must not contain NUL or lone surrogates", field=f"{field}.{name}", value="…", expected="plain text"
            )
        size += len(name) + len(content) + 2
    if size > ENV_BYTES:
        raise ValidationError("Too large", field=field, value=f"{size} bytes", expected=f"at most {ENV_BYTES} bytes")
    return dict(value)


def metadata(value: object, field: str = "metadata") -> dict[str, Any]:
    """A JSON object of bounded size."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValidationError("Must be an object", field=field, value=value, expected="a JSON object")
    try:
        encoded = json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"Must be JSON ({error})", field=field, value="…", expected="a JSON object") from None
    if len(encoded) > METADATA_BYTES:
        raise ValidationError(
            "Too large", field=field, value=f"{len(encoded)} bytes", expected=f"at most {METADATA_BYTES} bytes"
        )
    if any("\0" in one or _SURROGATE.search(one) for one in _strings(value)):
        raise ValidationError(
            "Must not contain NUL or lone surrogates",
            field=field,
            value="…",
            expected="text without NUL and without lone surrogates",
        )
    return dict(value)


def _strings(value: object) -> Iterator[str]:
    """Every key and every string of a JSON value."""
    left = [value]
    while left:
        match left.pop():
            case str() as found:
                yield found
            case Mapping() as table:
                left += [*table, *table.values()]
            case list() | tuple() as several:
                left += several
