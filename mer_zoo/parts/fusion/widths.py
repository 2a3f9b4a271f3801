"""What fusions ask of the widths of their modalities."""

from __future__ import annotations

from collections.abc import Mapping

from mer_zoo.errors import MerZooError, nearest


def equal_width(widths: Mapping[str, int], what: str) -> int:
    """Return the one width of all modalities.

    Raises:
        MerZooError: the widths differ.

    Example:
        >>> equal_width({"text": 2, "audio": 2}, "added")
        2
    """
    if len(set(widths.values())) != 1:
        shown = ", ".join(f"{m}: {width}" for m, width in widths.items())
        raise MerZooError(
            f"modalities of widths {shown} cannot be {what}. Project them to one width before: "
            "`encoder: {name: linear, out_width: 128}`."
        )
    return next(iter(widths.values()))


def at_least_two(widths: Mapping[str, int]) -> None:
    """Refuse a single modality.

    Raises:
        MerZooError: fewer than two modalities.
    """
    if len(widths) < 2:
        raise MerZooError(
            f"it relates modalities to each other, but there is only {', '.join(widths) or 'none'}. "
            "Use `fusion: concat`, or data with more modalities."
        )


def per_modality(value: int | dict[str, int], widths: Mapping[str, int], setting: str) -> dict[str, int]:
    """Spread a setting over the modalities: one number for all, or one for each.

    Raises:
        MerZooError: a modality without a number, or an unknown one.

    Example:
        >>> per_modality(3, {"text": 8, "audio": 4}, "hidden")
        {'text': 3, 'audio': 3}
    """
    if isinstance(value, int):
        return dict.fromkeys(widths, value)
    for name in value:
        named_modality(name, widths, setting)
    missing = [m for m in widths if m not in value]
    if missing:
        raise MerZooError(f"`{setting}` has no number for {', '.join(missing)}. Add it, or give one number for all.")
    return {m: value[m] for m in widths}


def named_modality(name: str, widths: Mapping[str, int], setting: str) -> str:
    """Return `name` if it is a modality.

    Raises:
        MerZooError: it is not; with the nearest match.
    """
    if name not in widths:
        raise MerZooError(f"`{setting}`: no modality named '{name}'.{nearest(name, widths)}")
    return name
