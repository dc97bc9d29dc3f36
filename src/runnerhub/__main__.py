"""`python -m runnerhub`."""

from __future__ import annotations

from runnerhub.cli import main

main()
