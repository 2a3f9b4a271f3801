"""Where the data folders that belong to the library lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str) -> Path:
    """Return the folder `registry` or `baselines`, from the wheel or from the checkout.

    Example:
        >>> (folder("registry") / "references.bib").exists()
        True
    """
    packed = _PACKAGE / f"_{name}"
    return packed if packed.is_dir() else _PACKAGE.parent / name
