"""Sphinx configuration: `make docs` builds the site into site/, warnings being errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sphinx.errors import ConfigError  # noqa: E402

import mer_zoo  # noqa: E402
from docs import generator  # noqa: E402
from docs.generator import python, sources  # noqa: E402

project = "mer_zoo"
author = "The mer_zoo authors"
version = release = mer_zoo.__version__
copyright = f"{author}, MIT licence"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["made", "examples", "generator", "templates", "**/__pycache__"]
templates_path = ["templates"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!mer_zoo\.).*"),  # other libraries' names; ours are written in full
    (
        "py:class",
        r"mer_zoo\.comparison\.workers\.(Job|Answer)|mer_zoo\.registry\.resources\.Read|mer_zoo\.training\.capturing\.T|"
        r"mer_zoo\.model\.(step\.P|plan\.usable_name)",
    ),  # not classes
]
suppress_warnings = ["ref.python"]  # an annotation's short name that two modules define

autodoc_default_options = {"members": True, "ignore-module-all": True, "no-value": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autosummary_ignore_module_all = True
napoleon_custom_sections = [("Inputs", "params_style"), ("Outputs", "returns_style")]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_param = False
napoleon_use_rtype = False
viewcode_line_numbers = True

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
    "collapse_navigation": True,
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": [], "papers": [], "changelog": [], "citing": []}

# One file, no fonts or parts to fetch later, so that formulas show without a network and from a disk.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "local"}}


def _make(app: Any) -> None:
    faults = generator.faults()
    if faults:
        raise ConfigError("\n".join(["the site cannot be made:", *faults]))
    generator.write()


def setup(app: Any) -> None:
    """Make the generated pages first."""
    app.connect("config-inited", lambda app, config: _make(app))
    app.connect("autodoc-process-docstring", python.on_docstring, priority=400)  # napoleon's is 500
    app.connect("html-page-context", sources.on_page)
    app.add_directive("markdown", python.Markdown)
    app.add_role("src", sources.role)
