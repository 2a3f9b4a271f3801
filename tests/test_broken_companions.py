"""Losses, strategies, kernels, graphs and sources that are broken in ways one does not see by running them."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from mer_zoo.checking import check_part
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.synthetic import synthetic
from mer_zoo.errors import MerZooError
from mer_zoo.graph.dag import Dag
from mer_zoo.graph.k_nearest import KNearest
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.segment import Segment
from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.loss.nll import NLL
from mer_zoo.parts.loss.unimodal_squared import UnimodalSquared


class NeverClass0(NLL):
    def forward(self, output, labels):
        return super().forward(output, torch.where(labels == 0, -1, labels))


class NeverTheLastClass(NLL):
    def forward(self, output, labels):
        return super().forward(output, torch.where(labels == output.logits.shape[-1] - 1, -1, labels))


class SixClassLoss(NLL):
    def forward(self, output, labels):
        return super().forward(output, labels.clamp(max=5))


class OneModality(UnimodalSquared):
    def forward(self, output, labels):
        first = next(iter(output.modality_logits))
        return super().forward(replace(output, modality_logits={first: output.modality_logits[first]}), labels)


class IdleGamma(NLL):
    def __init__(self, class_counts: Sequence[int], *, gamma: float = 2.0) -> None:
        super().__init__(class_counts)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NeverClass0, "classes: utterances of class 0 do not count"),
        (NeverTheLastClass, "classes: utterances of class 5 do not count"),
        (SixClassLoss, "of class 6, a model that is sure and right has no smaller loss"),
        (OneModality, "it counts the logits of text, but not those of audio"),
        (IdleGamma, "setting gamma: `gamma` changes nothing"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_broken_losses(cls, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("loss", cls)


class Strategy(Balancing):
    """Sound: damps what is large."""

    def on_features(self, model, flow):
        return flow.with_states({m: x / (1 + x.norm(dim=-1, keepdim=True)) for m, x in flow.states.items()})

    def rates(self, output):
        return {m: torch.zeros(()) for m in self.modalities}


class ReadsValues(Strategy):
    def on_features(self, model, flow):
        alone = model.unimodal(flow)
        strongest = max(alone, key=lambda m: float(alone[m].detach().norm()))
        return flow.with_states({m: x * (0.5 if m == strongest else 1.0) for m, x in flow.states.items()})


class Branches(Strategy):
    def total_loss(self, loss, output, labels):
        return loss * 2 if loss > 1 else loss


class LeaksMean(Strategy):
    def on_features(self, model, flow):
        return flow.with_states({m: x - x.mean(0) for m, x in flow.states.items()})


class LeaksDetached(Strategy):
    def on_features(self, model, flow):
        return flow.with_states({m: x - x.mean(0).detach() for m, x in flow.states.items()})


class LeaksInputs(Strategy):
    def forward(self, model, batch):
        mixed = {m: 0.5 * x + 0.5 * x.roll(1, 0) for m, x in batch.features.items()}
        return model(replace(batch, features=mixed))


class ChangesLabels(Strategy):
    def on_labels(self, labels, output):
        return labels.roll(1)


class IdleAlpha(Strategy):
    def __init__(self, modalities: Sequence[str], classes: int, *, alpha: float = 0.5) -> None:
        super().__init__(modalities, classes)


class SixClassStrategy(Strategy):
    def on_features(self, model, flow):
        seen = {m: x.detach() @ torch.ones(6, 1) for m, x in model.unimodal(flow).items()}
        return flow.with_states({m: x * seen[m].sigmoid() for m, x in flow.states.items()})


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (ReadsValues, "stacking: it says it is `stackable`, but torch.func.vmap over seeds fails"),
        (ReadsValues, "host reads: a tensor's value is read on the host"),
        (Branches, "host reads: a tensor's value is read on the host"),
        (LeaksMean, "isolation: leakage between dialogues: what one dialogue gets has a gradient"),
        (LeaksDetached, "isolation: leakage between dialogues: other features of the others"),
        (LeaksInputs, "isolation: leakage between dialogues"),
        (ChangesLabels, "labels: `on_labels` changes a label"),
        (IdleAlpha, "setting alpha: `alpha` changes nothing"),
        (SixClassStrategy, "other facts: "),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_broken_strategies(cls, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("balancing", cls)


def test_a_sound_strategy_passes():
    check_part("balancing", Strategy)


class Mirrored(Band):
    def by_distance(self, edges):
        return super().by_distance(edges).flip(-1)


class Shifted(Segment):
    def by_distance(self, edges):
        return super().by_distance(edges).roll(1, -2)


@pytest.mark.parametrize("cls", [Mirrored, Shifted])
def test_broken_kernels(cls):
    with pytest.raises(MerZooError, match="operations: `by_distance` differs from its definition"):
        check_part("kernel", cls)


class IgnoresFuture(SelfCrossSpeaker):
    def __init__(self, node_types: tuple[str, ...], *, window: int = 4, future: int | None = None) -> None:
        super().__init__(node_types, window=window)


class IgnoresTurns(Dag):
    def __init__(self, node_types: tuple[str, ...], *, turns: int = 1) -> None:
        super().__init__(node_types, turns=1)


class ReadsAbsent(KNearest):
    def edges(self, conversation):
        return super().edges(replace(conversation, present={}))


class ForgetsVisual(SelfCrossSpeaker):
    def edges(self, conversation):
        none = (np.zeros(0, np.int64),) * 2
        return {key: none if "visual" in key else pair for key, pair in super().edges(conversation).items()}


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (IgnoresFuture, "setting future: `future` changes nothing"),
        (IgnoresTurns, "setting turns: `turns` changes nothing"),
        (ReadsAbsent, "absent modalities: features that are absent"),
        (ForgetsVisual, "edges: node type 'visual' has no edge at all"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_broken_graphs(cls, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("graph", cls)


def _dataset(change) -> type:
    """Return a dataset whose dialogues were changed."""

    def made() -> Dataset:
        return change(synthetic(dialogues=(20, 5, 8), utterances=(5, 9)))

    return made  # type: ignore[return-value]


def _told(data: Dataset, tell) -> Dataset:
    """Replace the last feature of text by what `tell` makes of the labels."""

    def changed(dialogue):
        text = dialogue.features["text"].copy()
        text[:, -1] = tell(dialogue.labels)
        return replace(dialogue, features={**dialogue.features, "text": text})

    return replace(data, conversations=tuple(map(changed, data)), fingerprint="")


def _trained_on(data: Dataset, noise: float) -> Dataset:
    """Replace the test dialogues by those trained on, under other names."""
    known, draw = {t.id: t for t in data}, np.random.default_rng(0)
    test = [
        replace(
            known[i],
            id=f"test {i}",
            features={m: x + noise * draw.normal(size=x.shape) for m, x in known[i].features.items()},
        )
        for i in data.splits["train"]
    ]
    kept = [known[i] for name in ("train", "validation") for i in data.splits[name]]
    splits = {**data.splits, "test": tuple(t.id for t in test)}
    return replace(data, conversations=(*kept, *test), splits=splits, fingerprint="")


def _masked(data: Dataset) -> Dataset:
    present = [replace(t, present={"audio": t.labels == 0}) for t in data]
    return replace(data, conversations=tuple(present), fingerprint="")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: _told(data, lambda y: y), "labels: feature 31 of text tells the label"),
        (lambda data: _told(data, lambda y: y == 3), "labels: feature 31 of text tells the label"),
        (lambda data: _told(data, lambda y: 100 - 7 * y), "labels: feature 31 of text tells the label"),
        (_masked, "labels: presence 0 of audio tells the label"),
        (lambda data: _trained_on(data, 0.0), "of the split 'test' are also trained on"),
        (lambda data: _trained_on(data, 1e-4), "of the split 'test' are also trained on"),
    ],
)
def test_broken_datasets(change, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("dataset", _dataset(change))


def test_a_sound_dataset_passes():
    check_part("dataset", _dataset(lambda data: data))


class Loudness:
    """An audio extractor."""

    modality = "audio"
    result: object = None

    def __init__(self, *, out_width: int = 2) -> None:
        self.out_width = out_width

    def __call__(self, utterances: Sequence[str]) -> object:
        return self.result


class OneFeatureForAll(Loudness):
    def __call__(self, utterances):
        return np.ones((len(utterances), self.out_width), np.float32)


class IdleWords(Loudness):
    modality = "text"

    def __init__(self, *, words: int = 2) -> None:
        super().__init__()

    def __call__(self, utterances):
        return np.array([[len(text), text.count(" ")] for text in utterances], np.float32)


def test_broken_extractors():
    with pytest.raises(MerZooError, match="features: 5 utterances give None; want an array of shape"):
        check_part("extractor", Loudness)
    with pytest.raises(MerZooError, match="every utterance gets the same features"):
        check_part("extractor", OneFeatureForAll)
    with pytest.raises(MerZooError, match="setting words: `words` changes nothing"):
        check_part("extractor", IdleWords)
