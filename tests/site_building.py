"""The site, built once for all tests that look at it."""

import functools
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def missing() -> str:
    """Why the site cannot be built here, or ""."""
    wanted = {"sphinx": "sphinx", "pydata_sphinx_theme": "pydata-sphinx-theme", "myst_parser": "myst-parser"}
    wanted |= {name: name for name in ("nbclient", "ipykernel", "pandas")}
    absent = [name for module, name in wanted.items() if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(absent)} (extra `docs`)" if absent else ""


@functools.cache
def build() -> tuple[Path, subprocess.CompletedProcess]:
    """Build strictly into a temporary folder; returns it and what Sphinx said."""
    folder = Path(tempfile.mkdtemp(prefix="mer-zoo-site-"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(folder)]
    return folder, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
