"""Deliberately broken parts: each is caught, with a message that names the fault."""

import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from mer_zoo.checking import check_part
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder, window_pairs
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.dense import Dense
from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.loss.nll import NLL


class Sound(nn.Module):
    """An encoder that keeps its contract; the broken ones differ in one thing."""

    def __init__(self, width: int, *, out_width: int = 5) -> None:
        super().__init__()
        self.out_width = out_width
        self.map = nn.Linear(width, out_width)

    def forward(self, x: Tensor, dialogues) -> Tensor:
        return self.map(x)


class SwappedAxes(Sound):
    def forward(self, x, dialogues):
        return self.map(x).t()


class NoOutWidth(Sound):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        del self.out_width


class WrongWidth(Sound):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.out_width = 7


class Unused(Sound):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.spare = nn.Parameter(torch.zeros(3))


class Leaking(Sound):
    def forward(self, x, dialogues):
        return self.map(x - x.mean(0))


class AcrossPadding(Sound):
    """Counts places of the padded layout."""

    def forward(self, x, dialogues):
        return self.map(x) + dialogues.pad(x).shape[1]


class NotFinite(Sound):
    def forward(self, x, dialogues):
        return self.map(x / x.norm(dim=-1, keepdim=True))


class ChangesInput(Sound):
    def forward(self, x, dialogues):
        return self.map(x.mul_(2))


class Random(Sound):
    def forward(self, x, dialogues):
        return self.map(x + 0.1 * torch.randn_like(x))


class Forgetful(Sound):
    """Part of what it computes with is not in its weights."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.shift = torch.randn(5)

    def forward(self, x, dialogues):
        return self.map(x) + self.shift.to(x.dtype)


class HostSync(Sound):
    def forward(self, x, dialogues):
        return self.map(x) * (1.0 if x.sum().item() > 0 else 2.0)


class Branching(Sound):
    def forward(self, x, dialogues):
        if x.abs().max() > 1:
            x = x / 2
        return self.map(x)


class Masking(Sound):
    def forward(self, x, dialogues):
        y = self.map(x)
        return y + y[x[:, 0] > 0].mean() * 0


class ThroughNumpy(Sound):
    def forward(self, x, dialogues):
        return self.map(x) + torch.from_numpy(x.detach().numpy()).mean(-1, keepdim=True) * 0


class FromPython(Sound):
    def forward(self, x, dialogues):
        return self.map(x) * torch.tensor([1.0], dtype=x.dtype)


class OnTheProcessor(Sound):
    def forward(self, x, dialogues):
        return self.map(x) * torch.ones(self.out_width)


class NoBuffer(Sound):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.scale = torch.ones(self.out_width)

    def forward(self, x, dialogues):
        return self.map(x) * self.scale


class Future(Sound):
    def forward(self, x, dialogues):
        padded = dialogues.pad(x)
        return self.map(dialogues.unpad(padded.roll(-1, 1) + padded))


class BySpeaker(Sound):
    def forward(self, x, dialogues):
        return self.map(x) * (1 + dialogues.speaker.unsqueeze(1))


class ByPosition(Sound):
    def forward(self, x, dialogues):
        return self.map(x) * (1 + dialogues.position.unsqueeze(1))


class Float32Only(Sound):
    def forward(self, x, dialogues):
        return self.map(x) + torch.ones(5, 5).sum() * torch.ones(x.shape[0], 1).float() @ torch.ones(1, 5)


class Recurrent(Sound):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.cell = nn.GRU(width, width, batch_first=True)

    def forward(self, x, dialogues):
        return self.map(dialogues.unpad(self.cell(dialogues.pad(x))[0]))


def test_the_sound_one_passes():
    promises = ("capturable", "causal", "speaker_relabelling_invariant", "utterance_permutation_equivariant")
    check_part("encoder", Sound, promises=promises)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (SwappedAxes, "shape: output has shape [5, 67], but must have [67, 5]: [rows, width]. The axes look swapped."),
        (NoOutWidth, "shape: `self.out_width` must be the width of the output, a positive int; it is None."),
        (WrongWidth, "shape: output has shape [67, 5], but must have [67, 7]"),
        (Unused, "gradients: no gradient reaches 'spare'. Use it, or list it under `dead`"),
        (Leaking, "isolation: leakage between dialogues"),
        (AcrossPadding, "isolation: leakage between dialogues"),
        (NotFinite, "finite: output is not finite for dialogues with features times 1"),
        (ChangesInput, "inputs untouched: forward changes its input [0]"),
        (Random, "determinism: two calls in evaluation mode give different outputs"),
        (Forgetful, "saving: after loading another instance's weights the outputs differ"),
        (Float32Only, "precision"),
        (Recurrent, "stacking: torch.func.vmap over stacked weights fails"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_broken_contracts(cls, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("encoder", cls)


@pytest.mark.parametrize(
    ("cls", "promise", "message"),
    [
        (HostSync, "capturable", "a tensor's value is read on the host"),
        (HostSync, "capturable", "test_broken_contracts.py"),
        (Branching, "capturable", "if x.abs().max() > 1"),
        (Masking, "capturable", "a shape depends on values"),
        (ThroughNumpy, "capturable", "goes through numpy"),
        (FromPython, "capturable", "a tensor is made from Python numbers"),
        (OnTheProcessor, "capturable", "on the processor, a copy from the host (test_broken_contracts.py"),
        (NoBuffer, "capturable", "return self.map(x) * self.scale"),
        (Future, "causal", "promised `causal`, but later utterances change what earlier ones get"),
        (BySpeaker, "speaker_relabelling_invariant", "other speaker numbers change the result"),
        (ByPosition, "utterance_permutation_equivariant", "another order of the utterances changes what they get"),
        (Sound, "unstackable", "the card says `unstackable`, but torch.func.vmap works"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_false_promises(cls, promise, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("encoder", cls, promises=[promise])


def test_false_dead_parameters():
    with pytest.raises(MerZooError, match=re.escape("`dead: map.*`, but a gradient reaches 'map.weight', 'map.bias'")):
        check_part("encoder", Sound, dead=["map.*"])
    with pytest.raises(MerZooError, match=re.escape("`dead: spair` matches no parameter")):
        check_part("encoder", Unused, dead=["spair", "spare"])
    check_part("encoder", Unused, dead=["spare"])


def test_every_fault_is_told_at_once():
    class Many(Unused):
        def forward(self, x, dialogues):
            return self.map(x - x.mean(0)) + torch.randn(5).to(x.dtype)

    with pytest.raises(MerZooError) as error:
        check_part("encoder", Many, promises=["causal"])
    for check in ("gradients:", "determinism:", "isolation:", "promise causal:"):
        assert f"\n  {check}" in str(error.value)


def test_an_unknown_promise():
    with pytest.raises(MerZooError, match=re.escape("no promise named 'casual'. Did you mean 'causal'?")):
        check_part("encoder", Sound, promises=["casual"])
    with pytest.raises(MerZooError, match="'linear_size' cannot be promised by an encoder, only by: graph"):
        check_part("encoder", Sound, promises=["linear_size"])


class NeedsOrder(nn.Module):
    """A fusion that takes states in the order they come."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.out_width = sum(widths.values())

    def forward(self, states, dialogues):
        return torch.cat(list(states.values()), -1)


class Favourite(nn.Module):
    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.out_width = widths["text"]

    def forward(self, states, dialogues):
        return states["text"]


def test_broken_fusions():
    with pytest.raises(MerZooError, match="order of states: the order of the states' mapping changes the result"):
        check_part("fusion", NeedsOrder)
    with pytest.raises(MerZooError, match="exchanging text and audio changes the result"):
        check_part("fusion", Favourite, promises=["modality_permutation_invariant"])
    with pytest.raises(MerZooError, match="promise modality_subset_safe"):
        check_part("fusion", Favourite, promises=["modality_subset_safe"])


class Unmasked(nn.Module):
    """A layer that sums what lies off the edges."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.map = nn.Linear(width, width)

    def forward(self, x, edges, weights):
        scores = edges.source(self.map(x).sum(-1)) + edges.target(x.sum(-1))
        return x * edges.sum(scores.exp().clamp(max=2) + 0 * edges.ones.to(x.dtype)).unsqueeze(-1)


def test_a_layer_that_forgets_the_mask():
    with pytest.raises(MerZooError, match=r"kernel Band gives another result than Segment.*edges.mask"):
        check_part("layer", Unmasked)


class Backwards(GraphBuilder):
    """Edges from the future, one of them out of range, and a relation that no edge type has."""

    relations = ("near", "far")  # type: ignore[assignment]
    fault = ""

    @property
    def edge_types(self):
        every = super().edge_types
        return [e for e in every if e[1] == "near"] if self.fault == "idle" else every

    def edges(self, conversation):
        source, target = window_pairs(len(conversation), 0, 1)
        found = {(m, r, m): (source, target) for m in self.node_types for r in self.relations}
        if self.fault == "range":
            return {key: (s + 1, t) for key, (s, t) in found.items()}
        if self.fault == "twice":
            return {key: (s.repeat(2), t.repeat(2)) for key, (s, t) in found.items()}
        if self.fault == "undeclared":
            return {**found, ("text", "beyond", "text"): (source, target)}
        if self.fault == "missing":
            return {key: pair for key, pair in found.items() if key[1] == "near"}
        return found


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("", "promised `causal`, but ('text', 'near', 'text') has the edge 1→0, from the future."),
        ("range", "edge 7→5 in a dialogue of 7 utterances."),
        ("twice", "an edge occurs twice."),
        ("undeclared", "edges of type ('text', 'beyond', 'text'), which `edge_types` does not declare."),
        ("missing", "`edges` gives nothing for edge type"),
        ("idle", "relations far belong to no edge type."),
    ],
)
def test_broken_graphs(fault, message):
    cls = type("Backwards", (Backwards,), {"fault": fault})
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("graph", cls, promises=["causal"])


class Growing(SelfCrossSpeaker):
    def edges(self, conversation):
        self.window = len(conversation)
        return super().edges(conversation)


def test_a_graph_that_grows_too_fast():
    with pytest.raises(MerZooError, match=re.escape("promised `linear_size`, but has")):
        check_part("graph", Growing, promises=["linear_size"])


class Idle(Balancing):
    """Does nothing, and says so."""

    def rates(self, output):
        return {m: torch.zeros(()) for m in self.modalities}


class Silent(Balancing):
    def total_loss(self, loss, output, labels):
        return loss * 2


class Alone(Silent):
    def __init__(self, modalities, classes) -> None:
        super().__init__((*modalities, "another"), classes)


def test_broken_strategies():
    with pytest.raises(MerZooError, match="modulates nothing"):
        check_part("balancing", Idle)
    with pytest.raises(MerZooError, match="`rates` tells of nothing; want a number for every modality"):
        check_part("balancing", Silent)
    with pytest.raises(MerZooError, match="one modality alone is accepted"):
        check_part("balancing", Alone)


class CountsUnlabelled(NLL):
    def forward(self, output, labels):
        return super().forward(output, labels.clamp(min=0))


class PerUtterance(NLL):
    def forward(self, output, labels):
        return output.logits.sum(-1)


class Inverted(NLL):
    def forward(self, output, labels):
        return -super().forward(output, labels)


def test_broken_losses():
    with pytest.raises(MerZooError, match="logits of unlabelled utterances"):
        check_part("loss", CountsUnlabelled)
    with pytest.raises(MerZooError, match=re.escape("a loss is one number, not [16]")):
        check_part("loss", PerUtterance)
    with pytest.raises(MerZooError, match="sure and right"):
        check_part("loss", Inverted)


class Doubled(Dense):
    def sum(self, edges):
        return super().sum(edges) * 2


def test_a_broken_kernel():
    with pytest.raises(MerZooError, match="`sum` differs from its definition"):
        check_part("kernel", Doubled)
