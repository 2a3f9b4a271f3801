"""No balancing."""

from __future__ import annotations

from mer_zoo.parts.balancing.base import Balancing


class NoBalancing(Balancing):
    """Train on the loss as it is.

    Args:
        modalities, classes: facts.

    Example:
        >>> NoBalancing(("text", "audio"), 6).stackable
        True
    """

    fewest = 0
