"""How the documentation is built: `nox -s docs`."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "runnerhub"
author = "The runnerhub authors"
copyright = "2026, the runnerhub authors"
version = release = installed("runnerhub")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "runnerhub"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": False, "exclude-members": "__init__, __new__"}
default_role = "code"
exclude_patterns = ["_build"]
