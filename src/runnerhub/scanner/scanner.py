"""The Scanner: the door to what is known of secrets and images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import anyio.to_thread

from runnerhub.model import check
from runnerhub.model.errors import NotFoundError, PluginError, UnavailableError
from runnerhub.protocols import ImageScanner, SecretRules
from runnerhub.scanner.secrets import RULES, Redactor, SecretFinding, secret_values

CONTENT_LENGTH = 10 * 1024 * 1024


class Scanner:
    """Finds secrets in content, masks them in logs, and asks the image scanners that plugins offer."""

    def __init__(self, image_scanners: Mapping[str, ImageScanner], rules: Mapping[str, SecretRules]) -> None:
        self._image_scanners = image_scanners
        self._patterns = {name: re.compile(pattern) for name, pattern in RULES.items()}
        for plugin, more in rules.items():
            for name, pattern in more.patterns().items():
                try:
                    self._patterns[f"{plugin}.{name}"] = re.compile(pattern)
                except re.error as error:
                    raise PluginError(f"secret rule {name!r} of {plugin!r} is no regular expression: {error}") from error

    def redactor(self, env: Mapping[str, str]) -> Redactor:
        """What masks the log of a job with this environment."""
        return Redactor(secret_values(env))

    async def scan_content(self, content: str) -> list[SecretFinding]:
        """Secrets in a text of at most 10 Mi characters, in order. Raises `ValidationError`."""
        check.text(content, "content", longest=CONTENT_LENGTH, shortest=0)
        return await anyio.to_thread.run_sync(self._find, content)

    async def scan_image(self, image: str, *, scanner: str | None = None) -> Mapping[str, Any]:
        """What an image scanner says of an image. Raises `NotFoundError` for an unknown one, `UnavailableError` for none."""
        check.text(image, "image", longest=512)
        if not self._image_scanners:
            raise UnavailableError("no image scanner is installed; install a plugin that offers one")
        name = scanner or min(self._image_scanners)
        if name not in self._image_scanners:
            raise NotFoundError("image scanner", name)
        return await self._image_scanners[name].scan(image)

    def _find(self, content: str) -> list[SecretFinding]:
        found = []
        for rule, pattern in self._patterns.items():
            for match in pattern.finditer(content):
                before = content.rfind("\n", 0, match.start()) + 1
                line = content.count("\n", 0, match.start()) + 1
                found.append(SecretFinding(rule, line, match.start() - before + 1, f"{match.group()[:4]}***"))
        return sorted(found, key=lambda one: (one.line, one.column, one.rule))
