"""Label sets: what a job asks for, what a runner carries, and when they fit.

GitHub matches labels case-insensitively and gives every self-hosted runner the label `self-hosted`
(docs.github.com, "Using self-hosted runners in a workflow"); so do we.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

from runnerhub.model import check
from runnerhub.model.errors import ValidationError

SELF_HOSTED = "self-hosted"
MOST_LABELS = 100

LabelSet: TypeAlias = frozenset[str]
"""Lower-cased labels without `self-hosted`: two jobs with the same set can run in the same places."""


def checked(labels: object, field: str = "labels") -> tuple[str, ...]:
    """Labels as somebody wrote them, order and case kept, repeats (whatever the case) dropped."""
    if isinstance(labels, (str, bytes)) or not isinstance(labels, (Sequence, frozenset, set)):
        raise ValidationError("Must be a list", field=field, value=labels, expected="a list of labels")
    if len(labels) > MOST_LABELS:
        raise ValidationError("Too many labels", field=field, value=f"{len(labels)} labels", expected=f"at most {MOST_LABELS}")
    seen: dict[str, str] = {}
    for index, label in enumerate(sorted(labels) if isinstance(labels, (frozenset, set)) else labels):
        name = check.text(label, f"{field}[{index}]", longest=256)
        if name != name.strip() or "," in name or any(ord(char) < 32 for char in name):
            raise ValidationError(
                "Bad label", field=f"{field}[{index}]", value=name, expected="no commas, control or outer blank characters"
            )
        seen.setdefault(name.lower(), name)
    return tuple(seen.values())


def label_set(labels: Iterable[str]) -> LabelSet:
    """The set that matching uses."""
    return frozenset(label.lower() for label in labels) - {SELF_HOSTED}


def fits(requested: LabelSet, offered: LabelSet) -> bool:
    """Whether a runner with `offered` may take a job that asks for `requested`."""
    return requested <= offered


def key(labels: LabelSet) -> str:
    """A text key of a set: sorted, joined by the unit separator (labels hold no control characters)."""
    return "\x1f".join(sorted(labels))


@lru_cache(maxsize=4096)
def from_key(text: str) -> LabelSet:
    """The set of a text key."""
    return frozenset(text.split("\x1f")) if text else frozenset()
