"""From a card and settings to a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mer_zoo.registry.cards import Card
from mer_zoo.registry.lookup import load
from mer_zoo.registry.signature import construct, validate


def fill(
    card: Card, given: Mapping[str, Any], place: str = "", locate: Callable[..., str] | None = None
) -> dict[str, Any]:
    """Check settings against a part's schema and return them all as plain data, defaults written in.

    Args:
        card: of the part.
        given: settings by name.
        place: put in front of an error.
        locate: gives the place of one setting (and of what is inside it), where it is known better than `place`.

    Raises:
        MerZooError: an unknown or ill-typed setting, with the nearest match.
    """
    return validate(card.kind, load(card, place), given, card.id, place, locate).model_dump(mode="json")


def build(card: Card, given: Mapping[str, Any], known_facts: Mapping[str, Any], place: str = "") -> Any:
    """Make a part: facts by position, settings by name.

    Raises:
        MerZooError: the settings do not fit, or the part refuses them (its `ValueError` is shown as the reason).
    """
    return construct(card.kind, load(card, place), given, known_facts, card.id, place)
