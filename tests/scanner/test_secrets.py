"""Secrets: what is known is masked in every form, what looks like one is found, and nothing else is touched."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub import NotFoundError, PluginError, Scanner, UnavailableError, ValidationError
from runnerhub.scanner.secrets import Redactor, secret_values

SECRET = "p@ss w0rd/+☃"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=40)


@given(TEXT, TEXT)
def test_no_form_of_a_secret_survives(before: str, after: str) -> None:
    raw = SECRET.encode()
    redactor = Redactor([SECRET])
    forms = [SECRET, quote(SECRET, safe=""), json.dumps(SECRET)[1:-1], raw.hex(), raw.hex().upper()]
    for form in forms:
        masked = redactor.mask(f"{before}{form}{after}\n".encode())
        assert form.encode() not in masked
        assert b"***" in masked


@pytest.mark.parametrize("prefix", ["", "a", "ab", "user:"])
def test_base64_hides_nothing_whatever_stands_before_it(prefix: str) -> None:
    secret = "correct-horse-battery-staple"
    line = base64.b64encode(f"{prefix}{secret}; and more".encode())
    masked = Redactor([secret]).mask(line + b"\n")
    before, _, after = masked.strip().partition(b"***")
    assert line.startswith(before)
    assert line.endswith(after)
    assert len(before) + len(after) <= len(line) - len(secret) * 4 // 3 + 2


@given(st.lists(TEXT, max_size=8))
def test_text_without_secrets_is_left_as_it_is(lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    if b"s3cr3t-value" not in data:
        assert Redactor(["s3cr3t-value"]).mask(data) == data


def test_lines_stay_lines() -> None:
    secret = "-----BEGIN KEY-----\nabcdefghij\nklmnopqrst\n-----END KEY-----"
    masked = Redactor([secret]).mask(b"x abcdefghij y\nnothing\nklmnopqrst\n")
    assert masked == b"x *** y\nnothing\n***\n"


def test_a_job_may_add_masks() -> None:
    redactor = Redactor()
    assert redactor.mask(b"hunter2-is-fine\n") == b"hunter2-is-fine\n"
    assert redactor.mask(b"::add-mask::hunter2-is\nsays hunter2-is\n") == b"::add-mask::***\nsays ***\n"
    assert redactor.mask(b"later hunter2-is-fine\n") == b"later ***-fine\n"


def test_what_is_too_short_is_not_masked() -> None:
    assert Redactor(["abc", ""]).mask(b"abc\n") == b"abc\n"


def test_names_say_what_is_secret() -> None:
    env = {"GITHUB_TOKEN": "a", "MY_PASSWORD": "b", "api_key": "c", "AWS_SECRET_ACCESS_KEY": "d", "PATH": "e", "KEYBOARD": "f"}
    assert secret_values(env) == ["a", "b", "c", "d"]


class Rules:
    def __init__(self, **patterns: str) -> None:
        self._patterns = patterns

    def patterns(self) -> dict[str, str]:
        return self._patterns


class Images:
    async def scan(self, image: str) -> dict[str, object]:
        return {"image": image}


@pytest.mark.anyio
async def test_content_is_searched_and_secrets_are_not_repeated() -> None:
    scanner = Scanner({}, {"mine": Rules(ticket=r"TICKET-\d{4}")})
    token = "ghp_" + "a1B2" * 9
    found = await scanner.scan_content(f"first\n  token = {token}\nTICKET-1234 AKIAABCDEFGHIJKLMNOP\n")
    assert [(one.rule, one.line, one.column, one.masked) for one in found] == [
        ("github-token", 2, 11, "ghp_***"),
        ("mine.ticket", 3, 1, "TICK***"),
        ("aws-access-key-id", 3, 13, "AKIA***"),
    ]
    assert token not in repr(found)
    assert await scanner.scan_content("") == []
    with pytest.raises(ValidationError, match="content"):
        await scanner.scan_content("x" * (10 * 1024 * 1024 + 1))


def test_a_rule_that_is_no_pattern_is_named() -> None:
    with pytest.raises(PluginError, match="'broken' of 'mine'"):
        Scanner({}, {"mine": Rules(broken="(")})


@pytest.mark.anyio
async def test_images_are_scanned_by_plugins_or_not_at_all() -> None:
    with pytest.raises(UnavailableError, match="no image scanner is installed"):
        await Scanner({}, {}).scan_image("alpine:3")
    scanner = Scanner({"mine": Images()}, {})
    assert await scanner.scan_image("alpine:3") == {"image": "alpine:3"}
    assert await scanner.scan_image("alpine:3", scanner="mine") == {"image": "alpine:3"}
    with pytest.raises(NotFoundError, match="image scanner"):
        await scanner.scan_image("alpine:3", scanner="theirs")
