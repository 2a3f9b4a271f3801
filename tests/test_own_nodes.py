"""Nodes of a graph builder's own: per speaker, per dialogue, so many, or as many as the builder says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mer_zoo
from mer_zoo import registry
from mer_zoo.batch.index import BatchIndex, Shape
from mer_zoo.checking import inspect_part
from mer_zoo.checking.batching import stacked
from mer_zoo.checking.small_data import WIDTHS, conversations
from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder, Nodes
from mer_zoo.graph.speaker_nodes import SpeakerNodes
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.saving import Saved, save
from mer_zoo.model.step import Step, companions

FACTS = Facts(WIDTHS, 3, 6, (1,) * 6)
LENGTHS = (5, 1, 9, 3)
HOP = {"layer": {"name": "rgcn", "out_width": 16, "bases": None, "normalise": "mean"}}
PROJECT = {"encoder": {"name": "linear", "out_width": 16}}
END = {"join": {"fusion": "concat"}, "classify": {"head": "linear"}}
LATE = {"project": PROJECT, "tell": HOP, "answer": HOP, **END}
EARLY = {
    **{"join": {"fusion": "concat"}, "project": PROJECT, "tell": HOP},
    "gather": {"fusion": "concat", "only": ["utterance", "speaker", "dialogue"]},
    "classify": {"head": "linear"},
}


class Topics(GraphBuilder):
    """Three learned topics that every utterance asks; moods, half as many as utterances, that begin with zeros."""

    nodes = {"topic": Nodes(per=3, state="learned"), "mood": Nodes(per="pair of turns", state="zeros")}  # noqa: RUF012
    relations = ("asks", "answers", "feels", "shows")

    @property
    def edge_types(self):
        ways = (("asks", "topic", 0), ("answers", "topic", 1), ("feels", "mood", 0), ("shows", "mood", 1))
        return [(own, r, n) if back else (n, r, own) for n in self.node_types for r, own, back in ways]

    def count_nodes(self, node_type, conversation):
        if node_type == "mood":
            return len(conversation) // 2
        return super().count_nodes(node_type, conversation)

    def edges(self, conversation):
        count = len(conversation)
        turn, topic = np.repeat(np.arange(count), 3), np.tile(np.arange(3), count)
        felt = np.arange(count // 2 * 2)
        pairs = {
            "asks": (turn, topic),
            "answers": (topic, turn),
            "feels": (felt, felt // 2),
            "shows": (felt // 2, felt),
        }
        return {key: pairs[key[1]] for key in self.edge_types}


@pytest.fixture(autouse=True)
def named(monkeypatch):
    """Give the builders of this file names."""
    monkeypatch.setattr(registry.lookup, "_registered", {})
    registry.register("graph", Topics)


def plan_of(stages, graph="speaker_nodes", **rest):
    file = recipe.RecipeFile(
        "mine", recipe.Recipe.model_validate({"title": "x", "graph": graph, "model": stages, **rest})
    )
    return filling.fill(file, WIDTHS)


def made(stages, graph="speaker_nodes", **rest):
    return assemble(plan_of(stages, graph, **rest), FACTS).eval()


def logits(model, dialogues, numbers, **how):
    return model(Corpus(dialogues, model.builder, model.views, **how).batch(numbers)).logits


LATER = {"tell": HOP, "gather": EARLY["gather"], "classify": EARLY["classify"]}
MODELS = {
    "speakers, late": (LATE, "speaker_nodes"),
    "speakers, early": (EARLY, "speaker_nodes"),
    "topics, late": (LATE, "topics"),
    "topics, early": (
        {**EARLY, "gather": {"fusion": "concat", "only": ["utterance", "topic", "mood"]}},
        "topics",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_all_kernels_agree_and_dialogues_stay_apart(name):
    model = made(*MODELS[name])
    dialogues = conversations(LENGTHS)
    with torch.no_grad():
        alone = torch.cat([logits(model, [dialogues[i]], [0]) for i in (2, 0, 3, 1)])
        for kernel in (Segment, Dense, Band, DGL, None):
            torch.testing.assert_close(logits(model, dialogues, [2, 0, 3, 1], kernels=kernel), alone)
        corpus = Corpus(dialogues, model.builder, model.views)
        edges = {view: count + 3 if count else 0 for view, count in corpus.shape([2, 0, 3, 1]).edges.items()}
        padded = corpus.batch(corpus.index([2, 0, 3, 1], Shape(6, 25, 12, edges)))
        torch.testing.assert_close(model(padded).logits[: len(alone)], alone)


def test_planes_holds_one_node_type_and_refuses_more():
    dialogues = conversations(LENGTHS)
    model = made(EARLY)
    torch.testing.assert_close(
        logits(model, dialogues, [0, 1], kernels=Planes), logits(model, dialogues, [0, 1], kernels=Dense)
    )
    late = made(LATE)
    with pytest.raises(MerZooError, match="Planes cannot hold edges between modalities of different utterances"):
        logits(late, dialogues, [0], kernels=Planes)


@pytest.mark.parametrize("name", MODELS)
def test_stacked_seeds_are_the_seeds_alone(name):
    plan = plan_of(*MODELS[name])
    models = [assemble(plan, FACTS, seed).eval() for seed in (0, 1)]
    corpus = Corpus(conversations(LENGTHS), models[0].builder, models[0].views, kernels=Dense)
    plans = [corpus.index(order) for order in ([2, 0, 3, 1], [0, 2, 1, 3])]
    weights, buffers = torch.func.stack_module_state(models)

    def one(state, index):
        return torch.func.functional_call(models[0], state, (corpus.batch(BatchIndex(**index)),)).logits

    together = torch.func.vmap(one)({**weights, **buffers}, stacked([plan.tensors() for plan in plans]))
    for logits_, model, plan_ in zip(together, models, plans, strict=True):
        torch.testing.assert_close(logits_, model(corpus.batch(plan_)).logits, rtol=1e-4, atol=1e-5)


def test_the_edges_are_used():
    """The loss of old: with edges to a node type of the builder's own and without, the same 16 digits."""
    model, dialogues = made(EARLY), conversations(LENGTHS)
    whole = logits(model, dialogues, [0, 2])

    class Silent(SpeakerNodes):
        def edges(self, conversation):
            nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
            return {key: nothing if "speaker" in key else pair for key, pair in super().edges(conversation).items()}

    model.builder = Silent(("utterance",))
    assert not torch.allclose(logits(model, dialogues, [0, 2]), whole)


def test_a_speaker_is_heard_across_a_long_dialogue():
    """A speaker's last turn hears the first, far beyond the window; another speaker's does not."""

    class SpeakersAlone(SpeakerNodes):
        nodes = {"speaker": Nodes(per="speaker")}  # noqa: RUF012
        relations = ("past", "present", "future", "says", "said_by")

        @property
        def edge_types(self):
            return [key for key in super().edge_types if "dialogue" not in key]

    registry.register("graph", SpeakersAlone)
    stages = {"join": EARLY["join"], "project": PROJECT, "tell": HOP, "classify": EARLY["classify"]}
    model = made({**stages, "tell": {**HOP, "relations": ["says", "said_by", "p*"]}}, "speakers_alone")
    draw = np.random.default_rng(0)
    features = {m: draw.normal(size=(40, w)).astype(np.float32) for m, w in WIDTHS.items()}
    speakers = tuple("AB"[i % 2] for i in range(40))
    dialogue = Conversation("d", speakers, [0] * 40, features)
    louder = {m: np.concatenate([x[:1] + 1, x[1:]]) for m, x in features.items()}
    before, after = (logits(model, [d], [0]) for d in (dialogue, replace(dialogue, features=louder)))
    changed = (before - after).abs().amax(1) > 1e-6
    assert changed[38]
    assert not changed[39]


def test_mean_learned_and_zeros():
    plan = plan_of(EARLY)
    model = assemble(plan, FACTS)
    seen = {}
    model.stages["tell"].register_forward_pre_hook(lambda module, given: seen.update(flow=given[0]))
    dialogues = conversations((5, 3))
    logits(model, dialogues, [1, 0])
    flow = seen["flow"]
    first = model.stages["tell"].joined(flow, "utterance+speaker+dialogue")
    x = flow.states["utterance"]
    layout = flow.batch.own["speaker"]
    for number, dialogue in enumerate((dialogues[1], dialogues[0])):
        begin = 0 if number == 0 else 3
        rows = x[begin : begin + len(dialogue)]
        torch.testing.assert_close(first["dialogue"][number], rows.mean(0))
        for speaker in set(dialogue.speaker_index.tolist()):
            at = number * layout.rows.shape[1] + speaker
            torch.testing.assert_close(first["speaker"][at], rows[dialogue.speaker_index == speaker].mean(0))

    topics = assemble(plan_of(*MODELS["topics, early"]), FACTS)
    topics.stages["tell"].register_forward_pre_hook(lambda module, given: seen.update(flow=given[0]))
    logits(topics, dialogues, [1, 0])
    first = topics.stages["tell"].joined(seen["flow"], "utterance+topic+mood")
    table = topics.state_dict()["stages.tell.first.utterance+topic+mood.learned.topic"]
    assert table.shape == (3, 16)
    torch.testing.assert_close(first["topic"], table.repeat(2, 1))
    assert not first["mood"].any()


def test_thirty_speakers_and_one_utterance():
    draw = np.random.default_rng(0)
    features = {m: draw.normal(size=(31, w)).astype(np.float32) for m, w in WIDTHS.items()}
    crowd = Conversation("crowd", tuple(f"S{i % 30}" for i in range(31)), [0] * 31, features)
    model = made(EARLY)
    dialogues = [crowd, *conversations((1, 4))]
    alone = torch.cat([logits(model, [d], [0]) for d in dialogues])
    torch.testing.assert_close(logits(model, dialogues, [0, 1, 2]), alone)


def test_every_parameter_learns():
    for stages, graph in MODELS.values():
        plan = plan_of(stages, graph)
        model = assemble(plan, FACTS)
        step = Step(model, *companions(plan, FACTS))
        step.backward(*step(Corpus(conversations(LENGTHS), model.builder, model.views).batch([0, 1, 2, 3])))
        idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
        assert idle == []


def test_stages_of_every_kind_run_with_them():
    stages = {
        **{"join": {"fusion": "concat"}, "project": PROJECT},
        "angle": {"edge_weight": "similarity"},
        **{"tell": {"layer": {"name": "graph_conv", "out_width": 16, "weighted": True}}, "norm": {"encoder": "norm"}},
        "context": {"encoder": {"name": "bilstm", "hidden": 8, "layers": 1}, "only": ["speaker"]},
        "answer": {"layer": {"name": "gat", "out_width": 16}, "relations": ["says", "said_by", "told", "heard"]},
        **{"more": {"add": {"tell": 0.5}}, "longer": {"skip": ["project"]}, "gather": EARLY["gather"]},
        "classify": {"head": "linear"},
    }
    model, dialogues = made(stages), conversations(LENGTHS)
    alone = torch.cat([logits(model, [d], [0]) for d in dialogues])
    torch.testing.assert_close(logits(model, dialogues, [0, 1, 2, 3]), alone)


def test_a_convolution_of_pyg_runs_on_them():
    hop = {"layer": {"name": "pyg", "conv": "TransformerConv", "heads": 2}}
    model, dialogues = made({**EARLY, "tell": hop}), conversations(LENGTHS)
    alone = torch.cat([logits(model, [d], [0]) for d in dialogues])
    torch.testing.assert_close(logits(model, dialogues, [0, 1, 2, 3]), alone)


def test_modalities_are_still_balanced():
    model = made(LATE, balancing={"name": "ogm_ge"})
    batch = Corpus(conversations(LENGTHS), model.builder, model.views).batch([0, 1])
    flow = model.encode(batch)
    assert set(flow.states) == set(WIDTHS)
    assert set(flow.own) == {"speaker", "dialogue"}
    assert set(model.unimodal(flow)) == set(WIDTHS)
    assert set(model(batch).features) == set(WIDTHS)


def refused(stages, graph="speaker_nodes"):
    with pytest.raises(MerZooError) as caught:
        made(stages, graph)
    return str(caught.value)


def test_what_would_not_be_used_is_refused():
    text = refused({**EARLY, "tell": {**HOP, "relations": ["past", "present"]}, "gather": EARLY["join"]})
    assert "graph: no stage uses the speaker nodes" in text
    one_way = {**EARLY, "tell": {**HOP, "relations": ["past", "says", "told", "heard"]}, "gather": EARLY["join"]}
    assert "graph: nobody hears the speaker nodes" in refused(one_way)
    assert "model.early.only: speaker has no states here" in refused(
        {
            "join": EARLY["join"],
            "early": {"encoder": "norm", "only": ["speaker"]},
            **{k: v for k, v in EARLY.items() if k != "join"},
        }
    )
    assert "a head judges utterances, not speaker" in refused(
        {**EARLY, "gather": EARLY["join"], "classify": {"head": "linear", "only": ["speaker"]}}
    )
    assert "no modality 'speeker'. Did you mean 'speaker'" in refused(
        {**EARLY, "gather": {"fusion": "concat", "only": ["speeker"]}}
    )
    assert "walks along utterances alone" in refused({**EARLY, "tell": {"layer": "dag_gru"}})
    assert "works on one node type at a time" in refused(
        {"join": EARLY["join"], "project": PROJECT, "angle": {"edge_weight": "position_attention"}, **LATER}
    )
    assert "cannot be padded" in refused(
        {**{k: v for k, v in EARLY.items() if k not in ("gather", "classify")}, "shown": {"padding": "shown"}}
    )


def builder_of(**members):
    return type("Odd", (SpeakerNodes,), members)


def test_a_builder_that_declares_them_badly_is_refused():
    registry.register("graph", builder_of(nodes={"speaker": Nodes(per="speaker")}), name="undeclared")
    assert "graph/undeclared has edges at dialogue" in refused(LATE, "undeclared")
    registry.register("graph", builder_of(nodes={**SpeakerNodes.nodes, "utterance": Nodes(per=1)}), name="clash")
    assert "cannot be called 'utterance'" in refused(EARLY, "clash")
    uncounted = {**SpeakerNodes.nodes, "speaker": Nodes(per="camp")}
    registry.register("graph", builder_of(nodes=uncounted), name="uncounted")
    assert "'speaker' is per camp. Say how many these are: override `count_nodes`" in refused(EARLY, "uncounted")

    class Beyond(SpeakerNodes):
        def edges(self, conversation):
            return {
                key: (u, v + 7) if key[2] == "speaker" else (u, v)
                for key, (u, v) in super().edges(conversation).items()
            }

    registry.register("graph", Beyond)
    text = refused(EARLY, "beyond")
    assert "makes an edge of says at a node of type speaker that is not there: there are 2, numbered from 0" in text


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"nodes": {"speaker": Nodes(per="speaker")}}, "construction: edge type (text, told, dialogue) is not made of"),
        ({"count_nodes": lambda self, node, dialogue: 1}, "edges: dialogue 'seven'"),
    ],
)
def test_check_knows_them(change, fault):
    found = [str(finding) for finding in inspect_part("graph", builder_of(**change)) if not finding.fine]
    assert any(fault in text for text in found), found


def test_a_graph_with_nodes_that_hear_and_tell_everyone_is_not_causal():
    found = {f.check: f.fault for f in inspect_part("graph", SpeakerNodes, promises=["causal"])}
    assert "nodes of its own hear the whole dialogue" in found["promise causal"]


def test_it_trains_saves_loads_and_predicts(tmp_path):
    few = ["training.epochs=1"]
    outcome = mer_zoo.train("speaker_nodes", data={"name": "synthetic", "dialogues": [12, 6, 6]}, change=few)
    assert 0 <= outcome.result.metrics.test.weighted_f1 <= 1
    data = mer_zoo.load_data({"name": "synthetic", "dialogues": [12, 6, 6]})
    model = outcome.model
    saved = Saved(model, "speaker_nodes", model.plan, data.label_names, "run", outcome.normaliser)
    save(saved, tmp_path / "model.safetensors")
    one, all_ = data.conversations[:1], data.conversations[:3]
    again = mer_zoo.load_model(tmp_path / "model.safetensors")
    wanted = saved.predict(all_)
    for dialogues in (one, all_):
        for name, shares in again.predict(dialogues).items():
            np.testing.assert_allclose(shares, wanted[name], atol=1e-5)
