"""The one exception users meet, and the wording all its messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LINE, LINES = (
    4000,
    200,
)  # characters of a line and lines of a message; whoever wrote a file may have filled it with more


class MerZooError(Exception):
    """Something in the user's input cannot be used; the message says what, where, and how to fix it.

    The command line prints the message alone and exits with code 2.

    Example:
        >>> raise MerZooError("mine.yaml:7:12 model.fuse: no fusion named 'gatd'.")
        Traceback (most recent call last):
        ...
        mer_zoo.errors.MerZooError: mine.yaml:7:12 model.fuse: no fusion named 'gatd'.
    """

    def __init__(self, message: object = "") -> None:
        lines = [line if len(line) <= LINE else f"{line[:LINE]}…" for line in str(message).split("\n")]
        if len(lines) > LINES:
            lines[LINES:] = [f"… and {len(lines) - LINES:,} lines more."]
        super().__init__("\n".join(lines))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to `name`, or a list of what there is.

    Example:
        >>> nearest("gatd", ["gated", "concat"])
        " Did you mean 'gated'?"
        >>> nearest("zzz", ["gated", "concat"])
        ' Known: concat, gated.'
    """
    options = sorted(set(known))
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    more = f" and {len(options) - 12} more" if len(options) > 12 else ""
    return f" Known: {', '.join(options[:12])}{more}." if options else ""


def at(place: str) -> str:
    """Return a place as the beginning of a message, or nothing for no place.

    Example:
        >>> at("mine.yaml:7:12 model.fuse") + "no fusion named 'gatd'."
        "mine.yaml:7:12 model.fuse: no fusion named 'gatd'."
    """
    return f"{place}: " if place else ""
