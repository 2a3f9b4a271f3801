"""Parts that declare themselves compatible assemble and train a step; others are refused by a message at assembly."""

import itertools
import re
from functools import cache

import numpy as np
import pytest
import torch

from mer_zoo import registry
from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.step import Step, companions

WIDTHS = {"text": 6, "audio": 4, "visual": 8}
FACTS = Facts(WIDTHS, 3, 6, (3, 4, 2, 5, 6, 1))
KINDS = ("graph", "layer", "fusion", "balancing", "head")
ORDERS = ("fusion between layer and head", "fusion first", "fusion of logits")
DERIVED = {"pair_shift"}  # judges what follows from another label column; tests/test_recipe_language.py
NAMES = ([card.name for card in registry.cards(kind) if "/" not in card.name] for kind in KINDS)
FACTORS = (*([name for name in names if name not in DERIVED] for names in NAMES), list(ORDERS))
SMALL = {"hidden": 8, "depth": 2, "out_width": 8, "heads": 2}


def pairwise(factors):
    """Return rows that hold every pair of values of any two factors: greedily, each row from a pair still
    missing; then random ones, up to 280."""
    draw = np.random.default_rng(0)
    missing = {
        ((i, a), (j, b))
        for i, j in itertools.combinations(range(len(factors)), 2)
        for a in factors[i]
        for b in factors[j]
    }
    rows = []
    while missing:
        best, most = None, -1
        seed = min(missing)
        for _ in range(12):
            row = {i: values[draw.integers(len(values))] for i, values in enumerate(factors)} | dict(seed)
            for i in draw.permutation(len(factors)):
                if i not in dict(seed):
                    row[i] = max(factors[i], key=lambda v, i=i: len(missing & _pairs({**row, i: v}, i)))
            gain = len(missing & _pairs(row))
            if gain > most:
                best, most = row, gain
        rows.append(tuple(best[i] for i in range(len(factors))))
        missing -= _pairs(best)
    while len(rows) < 280:
        rows.append(tuple(values[draw.integers(len(values))] for values in factors))
    return rows


def _pairs(row, only=None):
    return {
        ((i, row[i]), (j, row[j])) for i, j in itertools.combinations(sorted(row), 2) if only is None or only in (i, j)
    }


ROWS = pairwise(FACTORS)


def small(kind, name, **settings):
    """Return a part with small settings."""
    known = registry.settings(kind, registry.load(registry.find(kind, name)))
    return {"name": name, **{key: value for key, value in {**SMALL, **settings}.items() if key in known}}


def filled(graph, layer, fusion, balancing, head, order):
    """Return the recipe of a combination."""
    project = {"project": {"encoder": {"name": "linear", "out_width": 8}}}
    passing = {"pass": {"layer": small("layer", layer)}}
    fuse = {"fuse": {"fusion": small("fusion", fusion, out_width=6 if order == ORDERS[2] else 8)}}
    judge = {"judge": {"head": small("head", head)}}
    stages = {
        ORDERS[0]: {**project, **passing, **fuse, **judge},
        ORDERS[1]: {**project, **fuse, **passing, **judge},
        ORDERS[2]: {**project, **passing, **judge, **fuse},
    }[order]
    data = {"title": "a combination", "graph": graph, "model": stages, "balancing": balancing}
    return filling.fill(recipe.RecipeFile("combination", recipe.Recipe.model_validate(data)), WIDTHS)


@cache
def dialogues():
    return conversations([5, 3, 2], widths=WIDTHS)


# why a combination may be refused; anything else is a defect
REFUSALS = (
    r"^graph: .* edges run from one modality to another, but there is only 'utterance' here",
    r"^balancing: nothing to balance: the model has no head for text or for audio or for visual alone",
    r"^model\.pass: layer/dag_gru: walks along utterances alone. Leave the graph's own nodes out",
    r"^model: the stages end with states utterance: \d+, but must end with one row of 6 logits",
)


def outcome(row):
    """Train one step; returns the refusal, or "" when it trains."""
    try:
        made = filled(*row)
        model = assemble(made, FACTS)
        step = Step(model, *companions(made, FACTS))
    except MerZooError as refusal:
        return str(refusal)
    batch = Corpus(dialogues(), model.builder, model.views).batch([0, 1, 2])
    torch.manual_seed(0)
    step.balancing.on_epoch_start(0, lambda count: [(dict(model.encode(batch).states), batch.labels)])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    value, output, labels = step(batch)
    step.backward(value, output, labels)
    optimizer.step()
    assert value.isfinite()
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.isfinite().all() for p in model.parameters())
    return ""


def test_every_pair_is_drawn():
    assert len(ROWS) >= 200
    drawn = set().union(*(_pairs(dict(enumerate(row))) for row in ROWS))
    for i, j in itertools.combinations(range(len(FACTORS)), 2):
        assert all(((i, a), (j, b)) in drawn for a in FACTORS[i] for b in FACTORS[j])


def test_combinations():
    refused = {row: refusal for row in ROWS if (refusal := outcome(row))}
    unexplained = {row: text for row, text in refused.items() if not any(re.search(why, text) for why in REFUSALS)}
    assert unexplained == {}
    assert len(ROWS) - len(refused) >= 200
    trained = [row for row in ROWS if row not in refused]
    for values, tried in zip(FACTORS, zip(*trained, strict=True), strict=True):
        assert set(values) == set(tried)  # every part trains with some others


def refusal(stages, graph="self_cross_speaker", loss="nll", widths=WIDTHS):
    """Return the message with which stages are refused; the graph is left out where no stage uses one."""
    graph = graph if any(stage.keys() & {"layer", "edge_weight"} for stage in stages.values()) else None
    data = {"title": "a combination", "graph": graph, "model": stages, "loss": loss}
    made = filling.fill(recipe.RecipeFile("combination", recipe.Recipe.model_validate(data)), widths)
    with pytest.raises(MerZooError) as error:
        assemble(made, FACTS)
    return str(error.value)


PROJECT = {"project": {"encoder": {"name": "linear", "out_width": 8}}}
END = {"fuse": {"fusion": "concat"}, "judge": {"head": "linear"}}


def test_refusals_name_stage_and_mend():
    late = {**PROJECT, "pass": {"layer": "graph_conv"}, **END, "again": {"layer": "graph_conv"}}
    order = ["project", "pass", "fuse", "again", "judge"]
    text = refusal({name: late[name] for name in order})
    assert text.startswith("model.again: the graph's nodes are text, audio, visual, but here the states are utterance.")
    text = refusal({"pass": {"layer": "graph_conv"}, **END}, graph="complete_multimodal")
    assert text.startswith("model.pass: layer/graph_conv runs on text, audio, visual together, but their widths differ")
    odd = {"project": {"encoder": {"name": "linear", "out_width": 9}}, "t": {"encoder": "transformer"}}
    text = refusal({**odd, **END}, graph=None)
    assert text == "model.t: encoder/transformer cannot be made of these settings: width 9 is not divisible by 8 heads"
    text = refusal({**PROJECT, **END}, graph=None, loss="unimodal_squared")
    assert text.startswith("loss: loss/unimodal_squared: the model has no head per modality.")
    across = {**PROJECT, "angle": {"edge_weight": "position_attention"}, "pass": {"layer": "graph_conv"}, **END}
    text = refusal(across, graph="complete_multimodal")
    assert text.startswith("model.angle: edge_weight/position_attention: works on one node type at a time.")
    text = refusal(
        {**PROJECT, "fuse": {"fusion": "concat", "only": ["utterance"]}, "judge": {"head": "linear"}}, graph=None
    )
    assert text == "model.fuse: nothing to fuse: `only` names none of text, audio, visual."


class Touchy(torch.nn.Module):
    """An encoder that cannot stand odd numbers of utterances."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width

    def forward(self, x, dialogues):
        return x.unflatten(0, (2, -1)).flatten(0, 1)


def test_a_part_that_fails_is_named_at_assembly(monkeypatch):
    monkeypatch.setattr(registry.lookup, "_registered", {})
    registry.register("encoder", Touchy)
    text = refusal({**PROJECT, "rest": {"encoder": "touchy"}, **END}, graph=None)
    assert text.startswith("model.rest: encoder/touchy fails here, on two random dialogues:")
    assert "`mer-zoo check encoder/touchy` says whether the part itself is sound" in text
