"""How far a recipe can be trusted: whether published numbers were there to compare it with."""

from __future__ import annotations

import functools

from mer_zoo.model import recipe
from mer_zoo.registry import document, resources

EQUAL = "equal to the published code"
DESCRIBED = "re-made from a description, never compared with published numbers"
OWN = "no published model"


def status(name: str) -> str:
    """Return what is known of a recipe, read off the parity mappings and off what it extends.

    Args:
        name: of a shipped recipe.

    Example:
        >>> status("sdt/iemocap")
        'equal to the published code'
        >>> status("sdt")
        'variant of sdt/iemocap, which is equal to the published code'
        >>> status("dialoguecrn")
        're-made from a description, never compared with published numbers'
        >>> status("mlp")
        'no published model'
    """
    pages = recipe.read(name).pages
    folder = f"{resources.folder('baselines')}/"
    chain = [page.name.removeprefix(folder).removesuffix(".yaml") for page in pages]
    equal = next((number for number, one in enumerate(chain) if one in compared()), None)
    if equal is not None:
        return EQUAL if equal == 0 else f"variant of {chain[equal]}, which is {EQUAL}"
    return DESCRIBED if any(page.data.get("published") for page in pages) else OWN


@functools.cache
def compared() -> frozenset[str]:
    """Return the recipes that tests hold to numbers of the published code."""
    files = (resources.folder("baselines") / "parity").glob("*.yaml")
    return frozenset(name for file in files for name in document.plain(file.read_text(encoding="utf-8"))["compared"])
