"""Sphinx configuration: `python -m sphinx -W docs docs/_build` (extra `docs`)."""

from __future__ import annotations

from ptwalk import __version__

project = "ptwalk"
author = "the ptwalk authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"ptwalk {release}"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["_build"]
nitpicky = False
