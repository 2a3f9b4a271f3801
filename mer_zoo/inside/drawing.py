"""Drawings of what happens inside a model; a notebook shows them by itself, `savefig` writes them to a file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.inside.maps import AttentionMap, Node
from mer_zoo.showing import visible

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError:
    raise MerZooError("plots need matplotlib. Install it: pip install 'mer-zoo[report]'") from None

STYLE: dict[Any, Any] = {"text.parse_math": False, "font.size": 9}  # a name may hold a dollar sign
MOST = 24
"""Maps in one drawing."""


class Drawing(Figure):
    """A figure of matplotlib that a notebook shows, with or without `%matplotlib`."""

    def _repr_png_(self) -> bytes:
        page = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(page, format="png", dpi=100)
        return page.getvalue()


def draw_attention(
    model: str, conversation: Conversation, maps: Sequence[AttentionMap], head: int | None = None
) -> Drawing:
    """Draw every map as a block: rows look, columns are looked at.

    Args:
        model, conversation: whose maps they are.
        maps: at most `MOST`.
        head: which one; None: the mean of all.

    Raises:
        MerZooError: a map has no such head, or there are too many maps.
    """
    if len(maps) > MOST:
        raise MerZooError(
            f"{len(maps)} maps are too many for one drawing, which holds {MOST}. Choose a stage: "
            f"`.at('{maps[-1].stage}').plot()`."
        )
    for one in maps:
        if head is not None and not 0 <= head < one.weights.shape[1]:
            raise MerZooError(f"{one.title}: no head {head}; it has {one.weights.shape[1]}, numbered from 0.")
    across = min(3, len(maps))
    down = -(-len(maps) // across)
    size = 2.2 + 0.14 * min(max(len(one.targets) for one in maps), 40)
    with matplotlib.rc_context(STYLE):
        made = Drawing(figsize=(across * (size + 0.9), down * (size + 0.5)), layout="constrained")
        made.suptitle(visible(f"{model}, dialogue {conversation.id}: rows look at columns"))
        for number, one in enumerate(maps, 1):
            axes = made.add_subplot(down, across, number)
            weights = one.matrix if head is None else one.weights[:, head].sum(0)
            signed = one.name == "difference"
            limit = max(float(np.abs(weights).max()), 1e-9)
            block = axes.imshow(weights, "RdBu_r" if signed else "Blues", vmin=-limit if signed else 0, vmax=limit)
            made.colorbar(block, ax=axes, shrink=0.8)
            axes.set_title(one.title.replace(": ", "\n"), fontsize=9)
            first = (number - 1) % across == 0
            for axis, nodes, text in ((axes.yaxis, one.targets, first), (axes.xaxis, one.sources, False)):
                names = _names(conversation, nodes, text=text)
                step = -(-len(names) // 40)
                axis.set_ticks(range(0, len(names), step), names[::step], fontsize=7)
            axes.tick_params("x", rotation=90)
    return made


def draw_contributions(
    model: str, conversation: Conversation, decided: Sequence[str], contributions: Mapping[str, np.ndarray]
) -> Drawing:
    """Draw, utterance by utterance, what leaving out each modality would take from the class that was decided on.

    Args:
        model, conversation: who decided, and on what.
        decided: the class of every utterance.
        contributions: modality -> its contribution, `[utt]`.
    """
    count = len(conversation)
    with matplotlib.rc_context(STYLE):
        made = Drawing(figsize=(7, 1.2 + 0.32 * count), layout="constrained")
        axes = made.add_subplot()
        height = 0.8 / len(contributions)
        for number, (modality, shares) in enumerate(contributions.items()):
            axes.barh(np.arange(count) + (number + 0.5) * height - 0.4, 100 * shares, height, label=visible(modality))
        names = _names(conversation, [Node(i, "") for i in range(count)], text=True)
        labels = [f"{name} → {visible(label)}" for name, label in zip(names, decided, strict=True)]
        axes.set_yticks(range(count), labels, fontsize=7)
        axes.invert_yaxis()
        axes.axvline(0, color="#777777", linewidth=0.8)
        axes.set_xlabel("points of probability of the decided class that the modality adds")
        axes.set_title(visible(f"{model}, dialogue {conversation.id}"))
        made.legend(fontsize=8, loc="outside right upper")
    return made


def _names(conversation: Conversation, nodes: Sequence[Node], *, text: bool) -> list[str]:
    """Return number, modality where there are several, speaker, and the beginning of the text if it is wanted."""
    several = len({node.type for node in nodes}) > 1
    names = []
    for utterance, kind, own in nodes:
        if own:
            names.append(visible(f"{kind} {utterance}"))
            continue
        words = [str(utterance), *([kind] if several else []), conversation.speakers[utterance][:12]]
        said = conversation.transcript[utterance] if text and conversation.transcript else ""
        names.append(visible(" ".join(words) + (f": {said[:28]}{'…' * (len(said) > 28)}" if said else "")))
    return names
