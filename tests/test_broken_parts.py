"""Modules that are broken in ways one does not see by running them: each fails, with a message that names the fault."""

import re
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from mer_zoo.checking import check_names, check_part, inspect_part
from mer_zoo.errors import MerZooError


class Encoder(nn.Module):
    """Sound; the broken ones differ in one thing."""

    def __init__(self, width: int, *, hidden: int = 8) -> None:
        super().__init__()
        self.out_width = hidden
        self.map = nn.Linear(width, hidden)

    def forward(self, x: Tensor, layout) -> Tensor:
        return self.map(x)


class Detached(Encoder):
    def forward(self, x, layout):
        return self.map(x.detach())


class HalfDetached(Encoder):
    def forward(self, x, layout):
        half = x.shape[1] // 2
        return self.map(torch.cat([x[:, :half], x[:, half:].detach()], 1))


class IgnoresInput(Encoder):
    def forward(self, x, layout):
        return self.map(torch.ones_like(x))


class IgnoresSomeFeatures(Encoder):
    def forward(self, x, layout):
        return self.map(torch.cat([x[:, :-1], torch.zeros_like(x[:, :1])], 1))


class Width16(Encoder):
    def __init__(self, width: int) -> None:
        super().__init__(16)


class Upto31(Encoder):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.place = nn.Parameter(torch.randn(31, 8))

    def forward(self, x, layout):
        return self.map(x) + self.place[layout.position.clamp(max=99)]


class SilentBeyond100(Encoder):
    def forward(self, x, layout):
        return self.map(x) * (layout.position < 100).unsqueeze(1)


class ThirtySpeakers(Encoder):
    def __init__(self, width: int, speakers: int) -> None:
        super().__init__(width)
        self.who = nn.Parameter(torch.randn(30, 8))

    def forward(self, x, layout):
        return self.map(x) + self.who[layout.speaker]


class AsksForSpeakers(Encoder):
    def __init__(self, width: int, speakers: int) -> None:
        super().__init__(width)


class IdleNumber(Encoder):
    def __init__(self, width: int, *, hidden: int = 8, alpha: float = 0.1) -> None:
        super().__init__(width, hidden=hidden)


class IdleDropout(Encoder):
    def __init__(self, width: int, *, dropout: float = 0.5) -> None:
        super().__init__(width)
        self.drop = nn.Dropout(dropout)


class IdleChoice(Encoder):
    def __init__(self, width: int, *, residual: bool = False) -> None:
        super().__init__(width)


class SpareRows(Encoder):
    """The setting only makes a table longer that nobody reads to its end."""

    def __init__(self, width: int, *, longest: int = 40) -> None:
        super().__init__(width)
        self.place = nn.Parameter(torch.randn(longest, 8))

    def forward(self, x, layout):
        return self.map(x) + self.place[0]


class DefaultOnly(Encoder):
    def __init__(self, width: int, *, hidden: int = 8) -> None:
        super().__init__(width, hidden=hidden)
        self.map = nn.Linear(width, 8)


class OddBreaks(Encoder):
    def __init__(self, width: int, *, hidden: int = 8) -> None:
        super().__init__(width, hidden=2 * (hidden // 2))
        self.scale = nn.Parameter(torch.ones(hidden))

    def forward(self, x, layout):
        return self.map(x) * self.scale


class LeaksWhenDeep(Encoder):
    def __init__(self, width: int, *, layers: int = 1) -> None:
        super().__init__(width)
        self.layers = layers
        self.inner = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers - 1))

    def forward(self, x, layout):
        x = self.map(x)
        for layer in self.inner:
            x = layer(x - x.mean(0))
        return x


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Detached, "inputs: no gradient reaches x, though the output depends on it. Do not detach it."),
        (HalfDetached, "inputs: no gradient reaches feature 8 of 16 of x."),
        (IgnoresInput, "inputs: the output does not depend on x."),
        (IgnoresSomeFeatures, "inputs: no gradient reaches feature 15 of 16 of x."),
        (Width16, "other facts: with width 24, 3 speakers, 7 classes, 8 relations"),
        (Upto31, "other facts: with width 24"),
        (SilentBeyond100, "no gradient reaches utterance 100 of 135 of x."),
        (ThirtySpeakers, "other facts: with width 40, 70 speakers"),
        (AsksForSpeakers, "it asks for `speakers`, but who speaks changes nothing."),
        (IdleNumber, "setting alpha: `alpha` changes nothing (tried: 0.05, 0.2"),
        (IdleDropout, "setting dropout: `dropout` changes nothing"),
        (IdleChoice, "setting residual: residual: True changes nothing."),
        (SpareRows, "setting longest: `longest` changes nothing"),
        (DefaultOnly, "setting hidden: hidden: 4: output has shape"),
        (OddBreaks, "setting hidden: hidden: 9 fails: RuntimeError: The size of tensor"),
        (
            LeaksWhenDeep,
            "isolation: with width 24, 3 speakers, 7 classes, 8 relations, modalities text, audio, visual; ",
        ),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_broken_encoders(cls, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("encoder", cls)


def test_the_sound_ones_pass():
    check_part("encoder", Encoder)
    check_part("layer", Layer)


class SixClasses(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, 6)

    def forward(self, x, layout):
        return self.map(x)


class NeverTheLast(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, classes - 1)

    def forward(self, x, layout):
        return nn.functional.pad(self.map(x), (0, 1))


def test_broken_heads():
    with pytest.raises(
        MerZooError, match=r"other facts: .*7 classes.*output has shape \[67, 6\], but must have \[67, 7\]"
    ):
        check_part("head", SixClasses)
    with pytest.raises(MerZooError, match="the logits of class 5 do not depend on the input"):
        check_part("head", NeverTheLast)


class Layer(nn.Module):
    """Sound: a map per relation."""

    def __init__(self, width: int, relations: tuple[str, ...]) -> None:
        super().__init__()
        self.out_width = width
        self.maps = nn.Parameter(torch.randn(len(relations), width, width) / width)

    def forward(self, x: Tensor, edges, weights) -> Tensor:
        ones = edges.ones.to(x.dtype) if weights is None else weights
        apart = edges.aggregate_by_relation(ones, x)
        return x + (apart @ edges.pick(self.maps, 0)).sum(0)


class SixRelations(Layer):
    def __init__(self, width: int, relations: tuple[str, ...]) -> None:
        super().__init__(width, tuple("abcdef"))


class OneForAll(Layer):
    def forward(self, x, edges, weights):
        return x + (edges.aggregate(edges.ones.to(x.dtype)[None], x[None])[0] @ self.maps).sum(0)


class NoEdges(Layer):
    def forward(self, x, edges, weights):
        return x + (x @ self.maps).sum(0)


class CountsEdges(Layer):
    """Knows how many neighbours there are, not what they say."""

    def forward(self, x, edges, weights):
        return (1 + edges.sum(edges.one_hot.to(x.dtype))).unsqueeze(-1).mul(x @ edges.pick(self.maps, 0)).sum(0)


class NextDoor(Layer):
    """Passes messages beside the edges too."""

    def forward(self, x, edges, weights):
        padded = edges.pad(x)
        return super().forward(x, edges, weights) + edges.unpad(
            torch.cat([torch.zeros_like(padded[:, :1]), padded[:, :-1]], 1)
        )


class DetachedWeights(Layer):
    def forward(self, x, edges, weights):
        return super().forward(x, edges, None if weights is None else weights.detach())


class Constant(nn.Module):
    """Edge weights that do not look."""

    def forward(self, x, edges, layout):
        return edges.ones.to(x.dtype)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (SixRelations, "other facts: with width 24, 3 speakers, 7 classes, 8 relations"),
        (OneForAll, "edges: it asks for `relations`, but which relation an edge has changes nothing."),
        (NoEdges, "edges: the edges change nothing"),
        (CountsEdges, "edges: no message passes"),
        (NextDoor, "edges: a message passes where no edge is"),
        (DetachedWeights, "inputs: no gradient reaches weights, though the output depends on it."),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_broken_layers(cls, message):
    with pytest.raises(MerZooError, match=re.escape(message)):
        check_part("layer", cls)


def test_broken_edge_weights():
    with pytest.raises(MerZooError, match="inputs: the output does not depend on x"):
        check_part("edge_weight", Constant)


class TextOnly(nn.Module):
    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.out_width = 5
        self.map = nn.Linear(next(iter(widths.values())), 5)
        self.first = next(iter(widths))

    def forward(self, states, layout):
        return self.map(states[self.first])


class TakesText(nn.Module):
    """Names its modalities itself."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.names = ("text", "audio", "visual")
        self.out_width = sum(widths.values())

    def forward(self, states, layout):
        return torch.cat([states[m] for m in self.names], -1)


class ForgetsOne(TextOnly):
    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__(widths)
        self.maps = nn.ModuleDict({m: nn.Linear(width, 5) for m, width in widths.items()})
        del self.map

    def forward(self, states, layout):
        *kept, last = self.maps
        return sum(self.maps[m](states[m]) for m in kept) + self.maps[last](states[last].detach())


def test_broken_fusions():
    with pytest.raises(MerZooError, match="inputs: the output does not depend on audio"):
        check_part("fusion", TextOnly)
    with pytest.raises(MerZooError, match=r"other facts: .* modalities visual, audio: KeyError: 'text'"):
        check_part("fusion", TakesText)
    with pytest.raises(MerZooError, match="inputs: no gradient reaches visual, though the output depends on it"):
        check_part("fusion", ForgetsOne)


def test_checks_are_selected_by_name():
    assert [finding.check for finding in inspect_part("encoder", Detached, only="setting *")] == ["setting hidden"]
    check_part("encoder", Detached, only="iso*")
    with pytest.raises(MerZooError, match=re.escape("no check named 'isolatoin'. Did you mean 'isolation'?")):
        check_part("encoder", Encoder, only="isolatoin")
    names = check_names("encoder", "bilstm")
    assert names[:3] == ["construction", "shape", "other facts"]
    assert {"promise capturable", "setting hidden", "stacking"} <= set(names)
    found = [finding.check for finding in inspect_part("loss", "nll")]
    assert found == check_names("loss", "nll")


def test_the_command_selects_and_lists(capsys):
    from mer_zoo.cli import main

    assert main(["check", "loss/nll", "--only", "ord*"]) == 0
    assert capsys.readouterr().out == "ok     order\nloss/nll: passes.\n"
    assert main(["check", "loss/nll", "--list"]) == 0
    assert "stacking" in capsys.readouterr().out.splitlines()
