"""What `import runnerhub` costs above its own core dependencies, and what it must not load."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Figure, interleaved

ROUNDS = 15
NEVER = ("docker", "sqlalchemy", "litestar", "redis", "lightkube", "alembic", "httpx", "jwt", "click", "rich")


def _milliseconds(statement: str) -> float:
    code = f"import time; began = time.perf_counter(); {statement}; print((time.perf_counter() - began) * 1000)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def measure() -> list[Figure]:
    """The ratio of the two imports, and the packages that came along."""
    found = interleaved(
        ROUNDS,
        {
            "core": lambda: _milliseconds("import attrs, anyio, pluggy"),
            "hub": lambda: _milliseconds("import runnerhub"),
            "all": lambda: _milliseconds("from runnerhub import Hub"),
        },
    )
    ratio = found["hub"] / found["core"]
    code = f"import sys, runnerhub; runnerhub.Hub; print(*[name for name in {NEVER!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    return [
        Figure(
            "`import runnerhub` against its core dependencies",
            f"{found['hub']:.0f} ms / {found['core']:.0f} ms = {ratio:.2f}",
            "≤ 1.5",
            ratio <= 1.5,
        ),
        Figure("`from runnerhub import Hub`, which loads the engine", f"{found['all']:.0f} ms"),
        Figure("optional packages that the Hub loads", loaded or "none", "none", not loaded),
    ]
