"""What every attention of a model looks at in one dialogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.inside.maps import AttentionMap
from mer_zoo.inside.recording import Recorder
from mer_zoo.model.saving import Saved
from mer_zoo.showing import Shown, Table, Words

if TYPE_CHECKING:
    from mer_zoo.inside.drawing import Drawing


@dataclass(frozen=True, repr=False, eq=False)
class Attention(Shown):
    """What a model looks at in one dialogue: a map per attention; its data frame has a row per weight that is not 0.

    Attributes:
        model: name of the model.
        conversation: the dialogue.
        maps: one after the other as the model makes them.
    """

    model: str
    conversation: Conversation
    maps: tuple[AttentionMap, ...]

    def __iter__(self) -> Iterator[AttentionMap]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def at(self, stage: str, part: str | None = None) -> Attention:
        """Return the maps of one stage, or of one of its parts alone.

        Args:
            stage: its name in the recipe.
            part: node types that the part works on, such as `text`; None: all parts.

        Raises:
            MerZooError: nothing of that name attends.
        """
        chosen = [one for one in self.maps if one.stage == stage]
        if not chosen:
            known = nearest(stage, [one.stage for one in self.maps])
            raise MerZooError(f"model '{self.model}': no stage '{stage}' attends.{known}")
        parts = [one.part for one in chosen]
        if part is not None and part not in parts:
            raise MerZooError(f"model '{self.model}', stage '{stage}': no part '{part}'.{nearest(part, parts)}")
        return replace(self, maps=tuple(one for one in chosen if part in (None, one.part)))

    def shown(self) -> Iterator[Words | Table]:
        """Yield a row per map: its size, and which share of its weight lies where."""
        yield Words(f"What {self.model} looks at in dialogue '{self.conversation.id}', in % of the weight", "title")
        headings = ("stage", "part", "place", "map", "heads", "relations")
        shares = ("itself", "earlier", "later", "same speaker", "others")
        rows = [
            (
                *(one.stage, one.part, one.place, one.name, str(one.weights.shape[1]), str(len(one.relations))),
                *(f"{100 * share:.1f}" for share in self._shares(one)),
            )
            for one in self.maps
        ]
        yield Table(headings + shares, rows, numbers=range(4, 11))

    def _shares(self, one: AttentionMap) -> list[float]:
        """Return how much goes to the utterance itself, to earlier and later ones, to its speaker's and to others'."""
        sides = (one.targets, one.sources)  # a graph's own nodes are no utterances: -1, and masked
        target, source = (np.array([-1 if node.own else node.utterance for node in side]) for side in sides)
        gap, speaker = source[None] - target[:, None], self.conversation.speaker_index
        same = speaker[source][None] == speaker[target][:, None]
        looks = (np.abs(one.weights).sum((0, 1, 3)) > 0) & (target >= 0)
        weights = one.matrix[looks]
        where = (mask & (source >= 0) for mask in (gap == 0, gap < 0, gap > 0, same & (gap != 0), ~same))
        return [float((weights * mask[looks]).sum() / max(looks.sum(), 1)) for mask in where]

    def records(self) -> list[dict[str, Any]]:
        """Return who looks at whom by which head and relation, and how much."""
        found = []
        for one in self.maps:
            place = {"stage": one.stage, "part": one.part, "place": one.place, "map": one.name}
            for r, h, t, s in np.argwhere(one.weights):
                ends = {"target": one.targets[t], "source": one.sources[s]}
                row = place | {"relation": one.relations[r], "head": int(h)}
                for end, node in ends.items():
                    speaker = None if node.own else self.conversation.speakers[node.utterance]
                    row |= {end: node.utterance, f"{end}_type": node.type, f"{end}_speaker": speaker}
                found.append(row | {"weight": float(one.weights[r, h, t, s])})
        return found

    def plot(self, head: int | None = None) -> Drawing:
        """Draw every map: rows look, columns are looked at; a difference in two colours, by its sign.

        Args:
            head: which one; None: the mean of all.

        Raises:
            MerZooError: matplotlib is not installed (extra `report`), a map has no such head, or there are too many
                maps for one drawing.
        """
        from mer_zoo.inside.drawing import draw_attention

        return draw_attention(self.model, self.conversation, self.maps, head)


def attention(saved: Saved, conversation: Conversation, device: str = "cpu") -> Attention:
    """Run a model on one dialogue and return what each of its attentions looked at.

    Args:
        saved: the model.
        conversation: the dialogue, as `Saved.predict` takes it.
        device: where to compute.

    Raises:
        MerZooError: the model has no attention between utterances, or cannot be used on this dialogue.
    """
    batch = saved.corpus([conversation], device).batch([0])
    recorder = Recorder(saved.model.to(device).eval())
    recorder.run(batch)
    if not recorder.told:
        parts = ", ".join(f"{name}: {stage.card.id}" for name, stage in saved.model.named_stages() if stage.card)
        raise MerZooError(
            f"model '{saved.name}' has no attention between utterances (its stages are {parts}). Take a model that "
            "has, such as amb_dsgdn, or ask for its `contributions`."
        )
    times: Counter[str] = Counter()
    maps = []
    for one in recorder.told:
        times[one.title] += 1
        again = f"{one.place} (time {times[one.title]})".strip()
        maps.append(one if times[one.title] == 1 else replace(one, place=again))
    return Attention(saved.name, conversation, tuple(maps))
