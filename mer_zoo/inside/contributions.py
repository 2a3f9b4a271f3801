"""What each modality says of the utterances of one dialogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mer_zoo.data.conversation import Conversation
from mer_zoo.model.saving import Saved
from mer_zoo.showing import Shown, Table, Words
from mer_zoo.training.evaluation import contribution

if TYPE_CHECKING:
    from mer_zoo.inside.drawing import Drawing


@dataclass(frozen=True, repr=False, eq=False)
class Contributions(Shown):
    r"""What each modality says of every utterance; the data frame has a row per utterance and modality.

    The contribution of modality m to utterance i is the probability that the decided class would lose without it.

    $$c_{im} = p_{i\hat y}(\text{all}) - p_{i\hat y}(\text{all but } m),\qquad \hat y = \arg\max p_i(\text{all})$$

    Without it means: as if it were absent in the whole dialogue, which every model can be asked. It is below 0 where
    the modality speaks for another class, and the contributions need not sum to anything: two modalities that say the
    same contribute little each. What a modality says alone is the verdict of its own head in models that have one head
    per modality, else that of the whole model while all others are absent.

    Attributes:
        model: name of the model.
        conversation: the dialogue.
        label_names: the classes.
        together: float64 `[utt, classes]`, probabilities from all modalities.
        alone: modality -> `[utt, classes]`, from it alone.
        without: modality -> `[utt, classes]`, from all others.
        own_heads: whether each modality has a head of its own, whose verdict `alone` is.
    """

    model: str
    conversation: Conversation
    label_names: tuple[str, ...]
    together: np.ndarray
    alone: Mapping[str, np.ndarray]
    without: Mapping[str, np.ndarray]
    own_heads: bool

    @property
    def decided(self) -> np.ndarray:
        """The class that was decided on, int64 `[utt]`."""
        return self.together.argmax(-1)

    @property
    def contributions(self) -> dict[str, np.ndarray]:
        """Modality -> its contribution, float64 `[utt]`, from -1 to 1."""
        return {m: contribution(self.together, x) for m, x in self.without.items()}

    def shown(self) -> Iterator[Words | Table]:
        """Yield a row per utterance."""
        yield Words(f"What each modality says to {self.model} in dialogue '{self.conversation.id}'", "title")
        sure, contributions = self.together.max(-1), self.contributions
        headings = ["", "speaker", "decided", "%"]
        for modality in self.alone:
            headings += [f"{modality} alone", "%", "adds"]
        rows = []
        for i, speaker in enumerate(self.conversation.speakers):
            row = [str(i), speaker, self.label_names[self.decided[i]], f"{100 * sure[i]:.0f}"]
            for modality, said in self.alone.items():
                best = int(said[i].argmax())
                adds = round(100 * float(contributions[modality][i]))
                row += [self.label_names[best], f"{100 * said[i, best]:.0f}", f"{adds:+d}".replace("-", "−")]
            rows.append(row)
        numbers = [0, 3, *(4 + 3 * k + j for k in range(len(self.alone)) for j in (1, 2))]
        yield Table(headings, rows, numbers=numbers)
        whose = "its own head" if self.own_heads else "the whole model while the others are absent"
        yield Words(
            f"alone: the verdict of {whose}. adds: points of probability that the decided class would lose if the "
            "modality were absent.",
            "note",
        )

    def records(self) -> list[dict[str, Any]]:
        """Return what each modality says, utterance by utterance."""
        found = []
        for i, speaker in enumerate(self.conversation.speakers):
            for modality, said in self.alone.items():
                row = {"utterance": i, "speaker": speaker, "decided": self.label_names[self.decided[i]]}
                row |= {"modality": modality, "says": self.label_names[int(said[i].argmax())]}
                row["contribution"] = float(self.contributions[modality][i])
                found.append(row | {f"p({name})": float(p) for name, p in zip(self.label_names, said[i], strict=True)})
        return found

    def plot(self) -> Drawing:
        """Draw the contributions.

        Raises:
            MerZooError: matplotlib is not installed (extra `report`).
        """
        from mer_zoo.inside.drawing import draw_contributions

        decided = [self.label_names[number] for number in self.decided]
        return draw_contributions(self.model, self.conversation, decided, self.contributions)


def contributions(saved: Saved, conversation: Conversation, device: str = "cpu") -> Contributions:
    """Ask a model what each modality says of one dialogue; see `Contributions` for what that means.

    Args:
        saved: the model.
        conversation: the dialogue, as `Saved.predict` takes it.
        device: where to compute.

    Raises:
        MerZooError: the model cannot be used on this dialogue.
    """
    modalities = tuple(saved.plan.modalities)
    versions = [conversation, *(conversation.without(m) for m in modalities)]
    versions += [conversation.without(*(other for other in modalities if other != m)) for m in modalities]
    corpus = saved.corpus(versions, device)
    model = saved.model.to(device).eval()
    with torch.no_grad():
        outputs = [model(corpus.batch([number])) for number in range(len(versions))]
    together, *rest = (_probabilities(output.logits) for output in outputs)
    heads = {m: _probabilities(x) for m, x in outputs[0].modality_logits.items()}
    own = heads.keys() == set(modalities)
    count = len(modalities)
    return Contributions(
        saved.name,
        conversation,
        saved.label_names,
        together,
        {m: heads[m] if own else rest[count + i] for i, m in enumerate(modalities)},
        dict(zip(modalities, rest[:count], strict=True)),
        own,
    )


def _probabilities(logits: torch.Tensor) -> np.ndarray:
    return logits.softmax(-1).double().cpu().numpy()
