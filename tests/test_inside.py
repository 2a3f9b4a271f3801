"""What a model looks at and what each modality says: the maps are what was used, in every kernel and every model."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mer_zoo
from mer_zoo.batch import launch_cost
from mer_zoo.checking.small_data import WIDTHS, conversations
from mer_zoo.corpus import Corpus
from mer_zoo.data.normalising import Normaliser
from mer_zoo.errors import MerZooError
from mer_zoo.inside.attention import attention
from mer_zoo.inside.contributions import contributions
from mer_zoo.inside.recording import Recorder
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.saving import Saved
from mer_zoo.training.experiment import prepare
from mer_zoo.training.loop import train, train_stacked

KERNELS = [Segment, Dense, Band, Planes, DGL]
LOOKS = {"amb_dsgdn", "cogmen", "corect", "dag_erc", "dialoguecrn", "dialoguegcn", "dialoguernn", "sdt"}
"""Models of the first generation that attend; a later one is held to the rows of its maps only."""
WITHOUT = {"bilstm", "graphsmile", "m3net", "mm_dfn", "mmgcn"}


def saved(given, classes=4, speakers=3):
    """Return an untrained model."""
    file = recipe.read(given)
    plan = filling.fill(file, WIDTHS)
    model = assemble(plan, Facts(WIDTHS, speakers, classes, (1,) * classes, 12)).eval()
    normaliser = Normaliser.fit(conversations([9, 9]), plan.normalise)
    return Saved(model, file.name, plan, tuple("abcdefgh"[:classes]), "run", normaliser)


def sums(one):
    return one.weights.sum((0, 3))


def layered(layer, graph="self_cross_speaker"):
    """A model with one graph layer on the utterance."""
    model = {"join": {"fusion": "concat"}, "context": {"encoder": {"name": "linear", "out_width": 8}}}
    return {"title": "t", "graph": graph, "model": model | {"look": {"layer": layer}, "classify": {"head": "linear"}}}


LAYERS = ["gat", "gatv2", "graph_transformer", "relational_gat", "differential_gat", "differential_dot", "dag_gru"]


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=6, deadline=None)
@given(st.integers(1, 13), st.integers(0, 10**6), st.integers(1, 4))
def test_every_kernel_tells_the_same_maps_and_they_are_what_was_used(layer, length, seed, window):
    torch.manual_seed(seed)
    model = saved(layered(layer, {"name": "self_cross_speaker", "window": window}))
    (dialogue,) = conversations([length], seed=seed)
    found = {}
    for kernel in KERNELS:
        used = []
        batch = Corpus([dialogue], model.model.builder, model.model.views, kernels=kernel).batch([0])
        (edges,) = batch.views.values()
        aggregate = edges.aggregate
        edges.aggregate = lambda w, v, e=edges, a=aggregate, u=used: (u.append(e.edge_values(w)), a(w, v))[1]
        recorder = Recorder(model.model)
        recorder.run(batch)
        found[kernel] = recorder.told
        last = {}
        for told in recorder.told:
            last[told.place] = told.weights
            if told.name != "difference":
                rows = told.weights.sum((0, 3))
                assert np.allclose(rows, np.abs(told.weights).sum((0, 3)))
                assert (np.isclose(rows, 1, atol=1e-5) | (rows == 0)).all()
        number = torch.arange(edges.nodes, dtype=torch.float64)
        target, source = (edges.edge_values(end(number)).long().numpy() for end in (edges.target, edges.source))
        for values, weights in zip(used, last.values(), strict=layer != "dag_gru"):  # which walks instead
            np.testing.assert_allclose(weights.sum(0)[:, target, source], values.numpy(), atol=1e-6)
    for told in found.values():
        for one, other in zip(found[Segment], told, strict=True):
            assert (one.stage, one.place, one.name, one.relations) == (
                other.stage,
                other.place,
                other.name,
                other.relations,
            )
            np.testing.assert_allclose(one.weights, other.weights, atol=2e-6)


def test_graph_attention_reproduces_the_layer_from_its_map():
    model = saved(layered({"name": "graph_transformer", "out_width": 8, "heads": 2}))
    (dialogue,) = conversations([9])
    (one,) = attention(model, dialogue)
    layer = model.model.stages["look"].parts["utterance"]
    flow = model.model.encode(model.corpus([dialogue]).batch([0]))
    for name in ("join", "context"):
        flow = model.model.stages[name](flow)
    x = flow.states["utterance"]
    with torch.no_grad():
        values = layer.value(x).unflatten(-1, (2, -1)).transpose(0, 1).double()
        want = (torch.from_numpy(one.weights.sum(0)) @ values).transpose(0, 1).flatten(1) + layer.root(x)
        flow = model.model.stages["look"](flow)
    torch.testing.assert_close(flow.states["utterance"].double(), want, atol=1e-5, rtol=1e-5)


def test_the_difference_is_that_of_the_maps_and_each_lies_on_its_relation():
    model = saved("amb_dsgdn")
    (dialogue,) = conversations([11])
    found = attention(model, dialogue).at("same_speaker", "audio")
    assert [one.name for one in found][:3] == ["map 1", "map 2", "difference"]
    first, second, difference = found.maps[:3]
    damping = model.model.stages["same_speaker"].parts["audio"].first._damping().detach().numpy()
    want = damping[:, 0, 0, None, None] * first.weights + damping[:, 0, 1, None, None] * second.weights
    np.testing.assert_allclose(difference.weights, want, atol=1e-6)
    speaker = dialogue.speaker_index
    for number, relation in enumerate(first.relations):
        target, source = first.weights[number].sum(0).nonzero()
        assert (speaker[target] == speaker[source]).all()
        gap = {"self_loop": 0, "same_speaker_past": -1, "same_speaker_future": 1}[relation]
        assert (np.sign(source - target) == gap).all()


def own_nodes(layer):
    """A model whose layer passes messages among utterances, speakers and the dialogue."""
    given = layered(layer, "speaker_nodes")
    classify = given["model"].pop("classify")
    gather = {"fusion": "concat", "only": ["utterance"]}
    return given | {"model": given["model"] | {"gather": gather, "classify": classify}}


@pytest.mark.parametrize("layer", ["gat", "differential_gat"])
def test_nodes_of_the_graph_s_own_look_and_are_looked_at_under_their_own_names(layer):
    (dialogue,) = conversations([9])
    found = attention(saved(own_nodes(layer)), dialogue)
    speaker, count = dialogue.speaker_index, len(dialogue)
    for one in found:
        assert len(one.targets) == one.weights.shape[2] == one.weights.shape[3] == len(one.sources)
        assert len(one.targets) == count + speaker.max() + 1 + 1
        relation = {name: one.weights[number].any(0) for number, name in enumerate(one.relations)}
        for t, s in zip(*relation["says"].nonzero(), strict=True):
            target, source = one.targets[t], one.sources[s]
            assert (target.type, target.own, source.own) == ("speaker", True, False)
            assert speaker[source.utterance] == target.utterance
        assert {one.targets[t].type for t in relation["told"].nonzero()[0]} == {"dialogue"}
    assert "speaker" in {row["source_type"] for row in found.records()}
    assert {row["source_speaker"] for row in found.records() if row["source_type"] == "dialogue"} == {None}
    shares = found._shares(found.maps[0])
    assert sum(shares[:3]) < 0.99  # the rest lies on own nodes
    assert "speaker 0" in [label.get_text() for label in found.plot().axes[0].get_yticklabels()]


def test_lambda_is_noted_after_every_epoch_of_a_seed_alone_and_of_stacked_ones():
    changes = ["training.epochs=2", "balancing=none", "training.optimizer=sgd"]
    data = {"name": "synthetic", "dialogues": [4, 2, 2], "utterances": [2, 5]}
    task = prepare(layered({"name": "differential_gat", "dropout": 0.0}), data, changes=changes).task()
    alone = [train(task, seed) for seed in (0, 1)]
    for one, other in zip(alone, train_stacked(task, [0, 1]), strict=True):
        noted = [entry["lambda"] for entry in one.result.history]
        assert [list(epoch) for epoch in noted] == [["look, utterance, first", "look, utterance, second"]] * 2
        assert noted[0] != noted[1]
        for mine, theirs in zip(noted, [entry["lambda"] for entry in other.result.history], strict=True):
            assert list(mine.values()) == pytest.approx(list(theirs.values()), abs=1e-5)
        first = one.model.stages["look"].parts["utterance"].first  # the weights of the chosen epoch
        chosen = noted[one.result.chosen_epoch]["look, utterance, first"]
        assert -first._damping()[:, 0, 1].mean().item() == pytest.approx(chosen, abs=1e-6)
    assert "lambda" not in train(prepare("bilstm", data, changes=changes).task(), 0).result.history[0]


def test_every_model_of_the_zoo_tells_or_says_that_it_has_none():
    (dialogue,) = conversations([10])
    told = set()
    for name in recipe.names():
        read = recipe.read(name).recipe
        if "/" in name or read.learner is not None:
            continue
        try:
            model = saved(name)
        except MerZooError as error:
            assert "modalit" in str(error) or "label" in str(error)  # noqa: PT017
            continue
        try:
            found = attention(model, dialogue)
        except MerZooError as error:
            assert "has no attention between utterances" in str(error)  # noqa: PT017
            assert name not in LOOKS
        else:
            assert name not in WITHOUT
            told.add(name)
            for one in found:
                total = sums(one)
                assert one.name == "difference" or (np.isclose(total, 1, atol=1e-5) | (total == 0)).all(), one.title
                assert one.weights.shape[2:] == (len(one.targets), len(one.sources))
        assert contributions(model, dialogue).contributions.keys() == set(model.plan.modalities)
    assert told >= LOOKS & set(recipe.names())


def test_listening_changes_nothing_and_leaves_nothing():
    model = saved("amb_dsgdn")
    (dialogue,) = conversations([8])
    before = model.predict([dialogue])["d0"]
    with launch_cost.assumed(True):  # as on a GPU, where the modalities are one program
        found = attention(model, dialogue)
    np.testing.assert_allclose(found.maps[0].weights, attention(model, dialogue).maps[0].weights, atol=1e-6)
    assert {one.part for one in found.at("same_speaker")} == {"text", "audio", "visual"}
    np.testing.assert_array_equal(model.predict([dialogue])["d0"], before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())


def test_walks_know_their_direction():
    (dialogue,) = conversations([7])
    found = attention(saved("dialoguernn"), dialogue).at("context")
    ahead, back = (one.matrix for one in found)
    assert np.triu(ahead).sum() == 0
    assert np.tril(back).sum() == 0
    np.testing.assert_allclose(ahead.sum(1), [0] + [1] * 6, atol=1e-5)
    np.testing.assert_allclose(back.sum(1), [1] * 6 + [0], atol=1e-5)
    dag = attention(saved("dag_erc"), dialogue).maps[0]
    same = dialogue.speaker_index[None] == dialogue.speaker_index[:, None]
    assert (dag.weights[dag.relations.index("same_speaker"), 0][~same] == 0).all()
    assert (dag.weights[dag.relations.index("other_speaker"), 0][same] == 0).all()


def test_the_backward_walk_of_a_reversed_dialogue_is_the_forward_walk():
    model = saved("dialoguernn")
    cells = model.model.stages["context"].parts["utterance"]
    cells.back.load_state_dict(cells.ahead.state_dict())
    (dialogue,) = conversations([7])
    turned = replace(
        dialogue,
        speakers=dialogue.speakers[::-1],
        labels=dialogue.labels[::-1],
        features={m: x[::-1] for m, x in dialogue.features.items()},
        roles=tuple(sorted(set(dialogue.speakers))),
    )
    ahead = attention(model, replace(dialogue, roles=turned.roles)).at("context").maps[0]
    back = attention(model, turned).at("context").maps[1]
    np.testing.assert_allclose(back.matrix, ahead.matrix[::-1, ::-1], atol=1e-6)


def test_those_who_look_across_modalities_are_named():
    model = {"join": {"fusion": {"name": "crossmodal", "hidden": 8, "heads": 2}}, "classify": {"head": "linear"}}
    (dialogue,) = conversations([5])
    found = attention(saved({"title": "t", "model": model}), dialogue)
    ends = [(one.targets[0].type, one.sources[0].type) for one in found]
    assert ends == [(a, b) for a in WIDTHS for b in WIDTHS if a != b]
    assert [one.part for one in found][:2] == ["text+audio", "text+visual"]
    shared = {"width": {"encoder": {"name": "linear", "out_width": 8}}}
    shared["all"] = {"encoder": {"name": "plain_transformer", "layers": 1}, "shared": True}
    shared |= {"join": {"fusion": "concat"}, "classify": {"head": "linear"}}
    assert [one.part for one in attention(saved({"title": "t", "model": shared}), dialogue)] == list(WIDTHS)


OWN = """
from torch import nn
from mer_zoo.batch.looking import looked

class Mine(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.out_width, self.map = width, nn.Linear(width, width)

    def forward(self, x, edges, weights):
        values = self.map(x)[None]
        return edges.aggregate(edges.softmax(edges.dot(values, x[None])), values).squeeze(0)

class Whole(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.out_width, self.map = width, nn.Linear(width, width)

    def forward(self, x, layout):
        keys = layout.pad(self.map(x))
        scores = (layout.pad(x) @ keys.mT).masked_fill(~layout.is_utterance[:, None], -1e9)
        return layout.unpad(looked(scores.softmax(-1)) @ keys)

class Wrong(Whole):
    def forward(self, x, layout):
        looked(x)
        return self.map(x)
"""


def test_layers_of_your_own_take_part(tmp_path):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    (dialogue,) = conversations([6])
    (one,) = attention(saved(layered(f"{tmp_path}/own.py:Mine")), dialogue)
    np.testing.assert_allclose(sums(one), 1, atol=1e-5)

    def whole(name):
        model = {"join": {"fusion": "concat"}, "look": {"encoder": f"{tmp_path}/own.py:{name}"}}
        return saved({"title": "t", "model": model | {"classify": {"head": "linear"}}})

    (one,) = attention(whole("Whole"), dialogue)
    np.testing.assert_allclose(sums(one), 1, atol=1e-5)
    with pytest.raises(MerZooError, match=r"model\.look: tells of attention of shape \(6, 18\) in a dialogue of 6"):
        attention(whole("Wrong"), dialogue)


def test_a_contribution_is_what_leaving_out_takes_away():
    model = saved("bilstm")
    (dialogue,) = conversations([6])
    found = contributions(model, dialogue)
    nowhere = np.zeros(6, bool)
    without = replace(dialogue, present={"audio": nowhere})
    whole, left = model.predict([dialogue])["d0"], model.predict([without])["d0"]
    decided = whole.argmax(1)
    want = whole[range(6), decided] - left[range(6), decided]
    np.testing.assert_allclose(found.contributions["audio"], want, atol=1e-7)
    alone = replace(dialogue, present={"audio": nowhere, "visual": nowhere})
    np.testing.assert_allclose(found.alone["text"], model.predict([alone])["d0"], atol=1e-7)
    assert not found.own_heads
    assert contributions(saved("sdt"), dialogue).own_heads


def test_a_modality_that_is_absent_anyway_contributes_nothing():
    model = saved("amb_dsgdn")
    (dialogue,) = conversations([6])
    silent = replace(dialogue, present={"visual": np.zeros(6, bool)})
    assert (contributions(model, silent).contributions["visual"] == 0).all()


def test_heads_of_modalities_speak_for_themselves():
    model = saved("sdt")
    (dialogue,) = conversations([6])
    output = model.model(model.corpus([dialogue]).batch([0]))
    found = contributions(model, dialogue)
    for modality, logits in output.modality_logits.items():
        np.testing.assert_allclose(found.alone[modality], logits.softmax(-1).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("columns", ["80", "100"])
def test_no_name_is_broken_where_a_table_is_wider_than_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    (dialogue,) = conversations([6])
    lines = str(attention(saved("amb_dsgdn"), dialogue)).splitlines()
    assert max(map(len, lines)) <= int(columns)
    rows = [line.split() for line in lines if line.startswith("same_speaker") and "difference" in line.split()]
    assert len(rows) == 6 * (2 if columns == "80" else 1)  # two tables, or one
    assert {len(row) for row in rows} == ({9, 6} if columns == "80" else {11})


def test_they_print_tabulate_and_plot():
    pytest.importorskip("matplotlib")
    model = saved("amb_dsgdn")
    (dialogue,) = conversations([6])
    named = replace(dialogue, speakers=tuple(f"<b>{name}$" for name in dialogue.speakers), transcript=("$a_b$",) * 6)
    found, said = attention(model, named), contributions(model, named)
    assert "same_speaker" in str(found)
    assert "&lt;b&gt;S" in said._repr_html_()
    assert "<b>S" not in said._repr_html_()
    frame = found.at("same_speaker", "text").to_dataframe()
    total = frame.query("map == 'map 1' and place == 'second'").groupby(["head", "target"]).weight.sum()
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert len(said.to_dataframe()) == 6 * 3
    assert found.at("same_speaker", "text").plot()._repr_png_().startswith(b"\x89PNG")
    assert found.at("same_speaker", "text").at("same_speaker").plot(head=0).axes
    assert said.plot()._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(MerZooError, match="maps are too many for one drawing"):
        found.plot()
    with pytest.raises(MerZooError, match="no head 1; it has 1"):
        found.at("same_speaker", "text").plot(head=1)
    with pytest.raises(MerZooError, match="Did you mean 'same_speaker'"):
        found.at("same_speakers")
    with pytest.raises(MerZooError, match="no part 'txt'"):
        found.at("same_speaker", "txt")


def test_without_matplotlib_a_plot_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "mer_zoo.inside.drawing", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (dialogue,) = conversations([4])
    with pytest.raises(MerZooError, match=r"pip install 'mer-zoo\[report\]'"):
        contributions(saved("bilstm"), dialogue).plot()


def test_from_python_a_run_a_file_and_a_loaded_model_are_one(tmp_path, small, small_folder):
    outcome = mer_zoo.train("dialoguernn", small_folder, change={"training.epochs": 1})
    dialogue = small.conversations[-1]
    from mer_zoo.model.saving import save

    save(outcome.saved, tmp_path / "m.safetensors")
    loaded = mer_zoo.load_model(tmp_path / "m.safetensors")
    ways = [mer_zoo.attention(m, dialogue) for m in (outcome, loaded, tmp_path / "m.safetensors")]
    for found in ways:
        np.testing.assert_array_equal(found.maps[0].weights, ways[0].maps[0].weights)
    learner = mer_zoo.train("majority", small_folder)
    with pytest.raises(MerZooError, match="a learner leaves no model"):
        mer_zoo.contributions(learner, dialogue)
    with pytest.raises(MerZooError, match="text features of width"):
        mer_zoo.attention(outcome, conversations([4])[0])
