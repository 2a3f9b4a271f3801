"""Sphinx configuration: `make docs` builds the site into site/, warnings being errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from docutils import nodes  # noqa: E402
from sphinx.errors import ConfigError  # noqa: E402

import mer_zoo  # noqa: E402
from docs import generator  # noqa: E402
from docs.generator import sources  # noqa: E402
from mer_zoo.errors import MerZooError  # noqa: E402

project = "mer_zoo"
author = "The mer_zoo authors"
version = release = mer_zoo.__version__
copyright = f"{author}, MIT licence"
extensions = ["myst_parser", "sphinx.ext.mathjax"]
exclude_patterns = ["made", "examples", "generator", "**/__pycache__"]
nitpicky = True

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

html_theme = "pydata_sphinx_theme"
html_title = "mer_zoo"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": [], "papers": [], "changelog": [], "citing": []}

# One file, no fonts or parts to fetch later, so that formulas show without a network and from a disk.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}


def _src(name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: Any, **__: Any) -> Any:
    """The role `src`; see docs/generator/sources.py."""
    try:
        path, line = sources.find(text)
    except MerZooError as error:
        fault = inliner.reporter.error(str(error), line=lineno)
        return [inliner.problematic(rawtext, rawtext, fault)], [fault]
    up = "../" * inliner.document.settings.env.docname.count("/")
    shown = Path(path).name + (f":{line}" if "::" in text else "")
    link = nodes.reference("", "", nodes.literal(text=shown), refuri=f"{up}source/{path}.html#L{line}", internal=True)
    return [link], []


def _make(app: Any) -> None:
    faults = generator.faults()
    if faults:
        raise ConfigError("\n".join(["the site cannot be made:", *faults]))
    generator.write()


def setup(app: Any) -> None:
    """Make the generated pages first."""
    app.connect("config-inited", lambda app, config: _make(app))
    app.add_role("src", _src)
