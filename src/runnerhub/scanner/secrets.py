"""Secrets: exact values are masked before a log is stored, well-known shapes are found in content."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

from attrs import frozen

MASK = b"***"
SHORTEST = 4
SHORTEST_LINE = 8
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)
_ADD_MASK = re.compile(rb"^::add-mask::(.*?)\r?$", re.MULTILINE)


@frozen
class SecretFinding:
    """Something that looks like a secret. `masked` shows its first four characters at most, never more."""

    rule: str
    line: int
    column: int
    masked: str


RULES: Mapping[str, str] = {
    "github-token": r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b",
    "github-fine-grained-token": r"\bgithub_pat_[A-Za-z0-9_]{82}\b",
    "aws-access-key-id": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "private-key": r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----",
    "slack-token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}",
    "json-web-token": r"\beyJ[A-Za-z0-9_-]{8,2048}\.eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{16,1024}",
}
"""Shapes of well-known secrets (from the issuers' own documentation); every repeat is bounded, so that matching is linear."""


def secret_values(env: Mapping[str, str]) -> list[str]:
    """The values of those variables whose names say that they are secret."""
    return [value for name, value in env.items() if _SECRET_NAME.search(name)]


class Redactor:
    """Masks exact values, and their usual encodings, in whole lines of a log. One per job: it learns `::add-mask::` values."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._needles: set[bytes] = set()
        self._pattern: re.Pattern[bytes] | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Mask these from now on. Values shorter than four bytes are not masked: the log would be nothing but masks."""
        before = len(self._needles)
        for value in values:
            self._needles.update(_forms(value))
        if len(self._needles) > before:
            longest_first = sorted(self._needles, key=lambda needle: (-len(needle), needle))
            self._pattern = re.compile(b"|".join(map(re.escape, longest_first)))

    def mask(self, data: bytes) -> bytes:
        """The lines with every secret as `***`; the number of lines stays the same."""
        if b"::add-mask::" in data:
            self.add(match.decode("utf-8", "surrogateescape") for match in _ADD_MASK.findall(data))
        if self._pattern is None or not any(needle in data for needle in self._needles):
            return data
        return self._pattern.sub(MASK, data)


def _forms(value: str) -> set[bytes]:
    """A value as it may be printed: as it is, line by line, and in the encodings that logs show."""
    raw = value.encode("utf-8", "surrogateescape")
    lines = [line.strip() for line in raw.splitlines()]
    plain = [line for line in lines if len(line) >= SHORTEST_LINE] if len(lines) > 1 else [raw.strip()]
    forms = {raw.hex().encode(), raw.hex().upper().encode(), json.dumps(value)[1:-1].encode("utf-8", "surrogateescape")}
    forms.update(form.encode() for form in (quote(raw, safe=""), quote_plus(raw)))
    forms.update(plain)
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * shift + raw)
            # Only the characters that depend on nothing but the value: neighbours share the ones at both ends.
            begin = (shift * 8 + 5) // 6
            forms.add(encoded[begin : (shift + len(raw)) * 8 // 6])
    return {form for form in forms if len(form) >= SHORTEST and b"\n" not in form and len(raw) >= SHORTEST}
