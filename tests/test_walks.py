"""Walks along dialogues whose gradient is written out: the gradient is right, and ended dialogues change nothing."""

import pytest
import torch
from torch import nn

from mer_zoo.batch import launch_cost
from mer_zoo.batch.index import Shape, Turns
from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.graph.dag import Dag
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.parts.encoder.dialogue_rnn import DialogueRNN
from mer_zoo.parts.layer.dag_gru import DagGRU
from mer_zoo.parts.ops import gru

LENGTHS = (4, 1, 6, 2)


def batch(builder=None, shape=None, nodes=("utterance",)):
    views = [(nodes, "*")] if builder else []
    corpus = Corpus(conversations(LENGTHS, speakers=3), builder, views)
    return corpus.batch(corpus.index(range(len(LENGTHS)), shape))


def dialogue_rnn(listener, drop=0.0):
    part = DialogueRNN(3, 2, global_width=4, party_width=3, emotion_width=2, listener=listener, dropout=drop)
    return part.double(), lambda x: part(x, batch().layout)


def dag(builder, nodes=1):
    names = ("text", "audio")[:nodes] if nodes > 1 else ("utterance",)
    edges = next(iter(batch(builder(names), nodes=names).views.values()))
    part = DagGRU(3, edges.names, depth=2).double()
    return part, lambda x: part(x.repeat_interleave(nodes, 0), edges, None)


WALKS = {
    "dialogue_rnn": lambda: dialogue_rnn(False),
    "dialogue_rnn, listeners": lambda: dialogue_rnn(True),
    "dag_gru": lambda: dag(lambda names: Dag(names)),
    "dag_gru, two nodes": lambda: dag(lambda names: SelfCrossSpeaker(names, window=2), 2),
}


@pytest.mark.parametrize("costly", [False, True], ids=["cheap", "costly"])
@pytest.mark.parametrize("name", WALKS)
def test_the_gradient_is_that_of_finite_differences(name, costly):
    torch.manual_seed(0)
    part, run = WALKS[name]()
    x = torch.randn(sum(LENGTHS), 3, dtype=torch.float64, requires_grad=True)
    given = [x, *part.parameters()]
    with launch_cost.assumed(costly):
        assert torch.autograd.gradcheck(lambda x, *_: run(x), given, check_undefined_grad=False, fast_mode=True)


@pytest.mark.parametrize("name", WALKS)
def test_dialogues_that_end_early_are_left_behind_without_a_trace(name):
    torch.manual_seed(0)
    part, run = WALKS[name]()
    x = torch.randn(sum(LENGTHS), 3, dtype=torch.float64, requires_grad=True)
    found = []
    for costly in (False, True):
        with launch_cost.assumed(costly):
            y = run(x)
        found.append([y, *torch.autograd.grad(y.sin().sum(), [x, *part.parameters()])])
    for cheap, dear in zip(*found, strict=True):
        torch.testing.assert_close(cheap, dear)


def test_turns_hold_every_utterance_once_and_no_padding():
    layout = batch(shape=Shape(6, 20, 9)).layout
    ahead, back = Turns.of(layout), Turns.of(layout, backwards=True)
    assert ahead.sizes == back.sizes == (4, 3, 2, 2, 1, 1)
    assert sorted(ahead.there.tolist()) == sorted(back.there.tolist()) == list(range(sum(LENGTHS)))
    assert ahead.there[:4].tolist() == [5, 0, 11, 4]  # first turns, the longest dialogue first
    assert back.there[:4].tolist() == [10, 3, 12, 4]
    with launch_cost.assumed(True):
        assert Turns.of(layout).sizes == (6,) * 9


def test_dropout_of_states_reaches_the_gradient():
    torch.manual_seed(0)
    part, run = dialogue_rnn(True, drop=0.5)
    x = torch.randn(sum(LENGTHS), 3, dtype=torch.float64, requires_grad=True)

    def again(x):
        torch.manual_seed(1)
        return run(x)

    assert not again(x).equal(part.eval()(x, batch().layout))
    part.train()
    assert torch.autograd.gradcheck(again, [x], check_undefined_grad=False, fast_mode=True)


def test_units_walk_as_those_of_torch():
    torch.manual_seed(0)
    cell = nn.GRU(3, 2)
    x = torch.randn(6, 4, 3, requires_grad=True)
    seen = (x @ cell.weight_ih_l0.t() + cell.bias_ih_l0).flatten(0, 1)
    ours = gru.walk([4] * 6, seen[None], cell.weight_hh_l0[None], cell.bias_hh_l0[None])[0]
    theirs = cell(x)[0].flatten(0, 1)
    torch.testing.assert_close(ours, theirs)
    slopes = [torch.autograd.grad(y.sin().sum(), [x, *cell.parameters()]) for y in (ours, theirs)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)
