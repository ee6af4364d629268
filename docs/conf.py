"""Settings of the documentation: Markdown pages, no extension that needs a network."""

from __future__ import annotations

from cellingua import __version__

project = "cellingua"
author = "The cellingua developers"
copyright = author
release = version = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_title = f"cellingua {release}"
nitpicky = True
