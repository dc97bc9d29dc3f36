"""Fail when a test was skipped that should run here: the only good reasons are listed."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

GOOD = ("macOS only",)


def main(path: str) -> int:
    """Print what was skipped for no good reason."""
    bad = [
        (case.get("classname"), case.get("name"), skipped.get("message"))
        for case in ET.parse(path).iter("testcase")  # noqa: S314  (pytest wrote it just now)
        for skipped in case.iter("skipped")
        if not any(reason in (skipped.get("message") or "") for reason in GOOD)
    ]
    for each in bad:
        sys.stdout.write(f"skipped without need: {each}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
