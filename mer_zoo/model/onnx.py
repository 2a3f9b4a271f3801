"""A trained model as an ONNX graph: one dialogue in, its logits out, in any program that runs ONNX."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mer_zoo.batch.index import BatchIndex, Layout
from mer_zoo.corpus import ConversationBatch
from mer_zoo.data.conversation import Conversation
from mer_zoo.data.normalising import CLIP
from mer_zoo.errors import MerZooError
from mer_zoo.graph.lowering import View, ViewSpec, lower
from mer_zoo.kernel.base import Kernel
from mer_zoo.kernel.segment import Segment
from mer_zoo.parts.ops.scan import as_onnx
from mer_zoo.registry.faults import short

if TYPE_CHECKING:
    from mer_zoo.model.saving import Saved

CLOSE = 1e-4
"""Of the largest logit: another order of float32 sums."""

TRACED, TRIED = 7, (1, 2, 5, 23)
"""Utterances of the dialogue that the graph is read off, and of those that it is then compared on."""


def inputs(saved: Saved, conversation: Conversation) -> dict[str, np.ndarray]:
    """Return one dialogue as the ONNX graph of a model takes it.

    Args, what is returned, and errors are those of `mer_zoo.onnx_inputs`.
    """
    saved.refuse_other_features(conversation)
    found: dict[str, np.ndarray] = {}
    for modality in saved.plan.modalities:
        absent = ~conversation.mask(modality)[:, None]
        found[f"features.{modality}"] = np.where(absent, np.float32(np.nan), conversation.features[modality])
    found["speaker"] = np.array(conversation.speaker_index, np.int64)
    builder = saved.model.builder
    if builder is not None:
        spec = ViewSpec(builder.node_types, builder.relations)
        view = lower([builder(saved.normaliser.apply(conversation))], [spec], builder.relations)[spec]
        found["edges"] = np.stack([view.source, view.target, view.relation]).astype(np.int64)
    return found


def write(saved: Saved, path: Path) -> None:
    """Write a model as an ONNX file, which must give the model's own logits in onnxruntime on dialogues of any length.

    The file's metadata name the classes, node types and relations, in the order of their numbers.

    Args:
        saved: the model.
        path: of the file.

    Raises:
        MerZooError: the extra is not installed, or the model cannot be written so: its computation depends on the
            length of a dialogue in a way that ONNX does not hold, or its graph has nodes of its own.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch writes by it
    except ImportError as error:
        raise MerZooError(f"ONNX needs {error.name}. Install it: pip install 'mer-zoo[onnx]'.") from None
    builder = saved.model.builder
    if builder is not None and builder.nodes:
        raise _impossible(saved, f"its graph has nodes of its own ({', '.join(builder.nodes)})")
    plain = _Plain(saved).eval()
    given = {name: torch.from_numpy(x) for name, x in inputs(saved, _dialogue(saved, TRACED)).items()}
    any_size = torch.export.Dim.DYNAMIC
    sizes = {name: {1: any_size} if name == "edges" else {0: any_size} for name in given}
    try:
        with warnings.catch_warnings(), torch.no_grad(), _quiet(), as_onnx():
            warnings.simplefilter("ignore")
            traced = torch.export.export(plain, (given,), dynamic_shapes=(sizes,), strict=False)
            program = torch.onnx.export(
                traced, input_names=list(given), output_names=["logits"], dynamo=True, verbose=False
            )
    except Exception as error:  # torch has no base class for them
        fixed = "Constraints violated" in str(error)
        why = "its steps are laid out for a dialogue of one length" if fixed else short(_root(error))
        raise _impossible(saved, why) from error
    assert program is not None
    program.model.metadata_props["mer_zoo"] = json.dumps(_described(saved))
    program.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for length in TRIED:
        _compare(saved, session, _dialogue(saved, length))


def _root(error: BaseException) -> str:
    """Return the first line of what an error came of; torch's own message is a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def _compare(saved: Saved, session: Any, dialogue: Conversation) -> None:
    """Refuse a graph that does not give the model's logits of a dialogue."""
    with torch.no_grad():
        wanted = saved.model(saved.corpus([dialogue]).batch([0])).logits.numpy()
    try:
        (got,) = session.run(["logits"], inputs(saved, dialogue))
    except Exception as error:  # onnxruntime has no base class of its own
        raise _impossible(saved, f"a dialogue of {len(dialogue)} utterances fails: {short(str(error))}") from error
    far = np.abs(got - wanted).max() if got.shape == wanted.shape else np.inf
    if not far <= CLOSE * max(1.0, float(np.abs(wanted).max())):
        raise _impossible(saved, f"logits of a dialogue of {len(dialogue)} utterances are off by {far:.1e}")


def _impossible(saved: Saved, why: str) -> MerZooError:
    return MerZooError(f"model '{saved.name}' cannot be written as ONNX: {why}. Export it without --onnx.")


def _described(saved: Saved) -> dict[str, Any]:
    """Return what a reader of the file must know to feed it and to read what it says."""
    builder = saved.model.builder
    graph = {} if builder is None else {"node_types": builder.node_types, "relations": builder.relations}
    return {"recipe": saved.name, "run": saved.run, "label_names": saved.label_names, **graph}


def _dialogue(saved: Saved, length: int) -> Conversation:
    """Return a random dialogue on the scale of the training data, each modality absent now and then."""
    draw = np.random.default_rng(length)
    features, present = {}, {}
    for modality, width in saved.plan.modalities.items():
        x = draw.normal(size=(length, width))
        if modality in saved.normaliser.mean:
            scale = saved.normaliser.scale[modality]
            x = saved.normaliser.mean[modality] + np.divide(x, scale, out=np.zeros_like(x), where=scale > 0)
        present[modality] = draw.random(length) > 1 / 8
        features[modality] = x.astype(np.float32) * present[modality][:, None]
    speakers = draw.integers(saved.model.facts.speakers, size=length)
    return Conversation("drawn", tuple(map(str, speakers)), np.full(length, -1), features, present)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from telling of packages that this does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Plain(nn.Module):
    """A model as a function of the tensors that `inputs` names, its normaliser within."""

    def __init__(self, saved: Saved) -> None:
        super().__init__()
        self.model, self.ways = saved.model, saved.normaliser.ways
        self.measured = {name: torch.from_numpy(x) for name, x in saved.normaliser.state().items()}

    def forward(self, given: dict[str, Tensor]) -> Tensor:
        speaker = given["speaker"]
        count = speaker.shape[0]
        place, none = torch.arange(count), torch.zeros(1, dtype=torch.int64)
        features, present = {}, {}
        for modality in self.model.modalities:
            x = given[f"features.{modality}"]
            present[modality] = here = ~x.isnan().any(1)
            features[modality] = self._normalised(modality, torch.where(here.unsqueeze(1), x, 0.0), here, speaker)
        layout = Layout(speaker, place, none + count, place.unsqueeze(0), place)
        index = BatchIndex(place, none, layout.rows, place, {})
        views: dict[ViewSpec, Kernel] = {
            spec: _Edges.of(spec, self.model.builder, given["edges"], index) for spec in self.model.views
        }
        return self.model(ConversationBatch(features, present, place, layout, views)).logits

    def _normalised(self, modality: str, x: Tensor, here: Tensor, speaker: Tensor) -> Tensor:
        """What `Normaliser.apply` computes, of tensors."""
        way = self.ways.get(modality, "none")
        if way == "none":
            return x
        mean, scale = self.measured[f"{modality}.mean"], self.measured[f"{modality}.scale"]
        z = ((x.double() - mean) * scale).clamp(-CLIP, CLIP) * here.unsqueeze(1)
        if way != "train":
            own = (speaker.unsqueeze(1) == speaker) & here
            if way == "speaker_causal":
                place = torch.arange(speaker.shape[0])
                own = own & (place < place.unsqueeze(1))
            total = 1 + own.double().sum(1, keepdim=True)
            middle = own.double() @ z / total
            spread = (1 + own.double() @ z.square()) / total - middle.square()
            z = ((z - middle) / spread.sqrt()).clamp(-CLIP, CLIP) * here.unsqueeze(1)
        return z.float()


class _Edges(Segment):
    """What one view sees of a graph's edges: all others run into a node that is not there, as padding does."""

    @classmethod
    def of(cls, spec: ViewSpec, builder: Any, edges: Tensor, index: BatchIndex) -> _Edges:
        types, relations = builder.node_types, builder.relations
        count = len(spec.node_types)
        place = torch.tensor([spec.node_types.index(one) if one in spec.node_types else -1 for one in types])
        slot = torch.tensor([spec.relations.index(one) if one in spec.relations else -1 for one in relations])
        (source, target), kind = edges[:2], slot[edges[2]]
        begin, end = place[source % len(types)], place[target % len(types)]
        seen = (begin >= 0) & (end >= 0) & (kind >= 0)
        tables = {
            "source": torch.where(seen, source // len(types) * count + begin, 0),
            "target": torch.where(seen, target // len(types) * count + end, index.utterances.shape[0] * count),
            "relation": torch.where(seen, kind, -1),
        }
        number = torch.arange(edges.shape[1])
        nothing = np.zeros(0, np.int64)
        chosen = tuple(relations.index(one) for one in spec.relations)
        view = View(count, *(nothing,) * 5, tuple(relations), chosen, nothing, np.zeros((0, 0), np.int64))
        return cls(view, tables, index, {"edge": number, "offset": torch.zeros_like(number)})

    def by_distance(self, edges: Tensor) -> Tensor:
        raise MerZooError("a layer walks along the dialogue, turn after turn")
