"""Every place where the registry, recipes, assembly and parts refuse something, visited.

A part may show its refusals in the example of its docstring instead, so that a new one changes no file but its own.

`python tests/test_error_texts.py` prints all texts as users read them.
"""

import ast
import contextlib
import doctest
import importlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mer_zoo import registry
from mer_zoo.batch.output import Output
from mer_zoo.checking import check_part, losses
from mer_zoo.checking.small_data import WIDTHS, conversations
from mer_zoo.commands import new
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder, Nodes
from mer_zoo.graph.complete_multimodal import CompleteMultimodal
from mer_zoo.graph.dag import Dag
from mer_zoo.graph.lowering import select
from mer_zoo.graph.speaker_nodes import SpeakerNodes
from mer_zoo.kernel.dense import Dense
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.optimising import OPTIMIZERS, SCHEDULES
from mer_zoo.parts.loss import base as loss_base
from mer_zoo.registry import document, references

ROOT = Path(__file__).parent.parent
COVERED = [
    "registry/*",
    "commands/new",
    "checking/__init__",
    "parts/*/*",
    "graph/*",
]  # importers, trackers: in tests of theirs
COVERED += [f"model/{name}" for name in ("plan", "recipe", "filling", "wiring", "model", "step", "assembly")]
ELSEWHERE = {
    "_package_folder",  # tests/test_plugins.py: needs installed packages
    "_import",  # dgl is not installed
    "total_loss",  # hooks called out of order
    "own",  # tests/test_balancing.py
    "explained",  # tests/test_training.py
    "_convolutions",  # PyTorch Geometric is not installed
    "_measured",  # tests/test_convolutions.py
    "graph_of",  # tests/test_convolutions.py: needs a GPU
}
FACTS = Facts(WIDTHS, 3, 6, (1,) * 6)
KNOWN = {"width": 6, "widths": WIDTHS, "relations": ("near",), "speakers": 2, "classes": 6, "class_counts": (1,) * 6}
KNOWN |= {"modalities": tuple(WIDTHS), "node_types": ("text", "audio")}
DIALOGUE = conversations([4])[0]


def make(kind, name, known=None, **settings):
    """Make a part."""
    return registry.build(registry.find(kind, name), settings, {**KNOWN, **(known or {})})


class Untyped(nn.Module):
    def __init__(self, width: int, *, heads=1) -> None:
        super().__init__()


class Plain(nn.Module):
    def __init__(self, width: int, *, heads: int = 1) -> None:
        super().__init__()


class Raising(GraphBuilder):
    relations = ("near", "far")  # type: ignore[assignment]

    def edges(self, conversation):
        if len(conversation) < 4:
            raise MerZooError("this dialogue is too short.")
        pair = (np.array([0]), np.array([1]))
        return {key: pair for key in self.edge_types}


class Speaking(GraphBuilder):
    relations = ("says",)  # type: ignore[assignment]
    edge_types = [("text", "says", "speaker")]  # type: ignore[assignment] # noqa: RUF012

    def edges(self, conversation):
        return {("text", "says", "speaker"): (np.array([0]), np.array([0]))}


class OneWay(SpeakerNodes):
    """Nodes that hear and never speak."""

    nodes = {"speaker": Nodes(per="speaker")}  # noqa: RUF012
    relations = ("present", "says")  # type: ignore[assignment]

    @property
    def edge_types(self):
        return [key for key in super().edge_types if key[1] in self.relations]

    def edges(self, conversation):
        count = len(conversation)
        ends = {"present": (np.arange(count),) * 2, "says": (np.arange(count), conversation.speaker_index)}
        return {key: ends[key[1]] for key in self.edge_types}


class Misnamed(SpeakerNodes):
    nodes = {**SpeakerNodes.nodes, "utterance": Nodes(per=1)}  # noqa: RUF012


class Undefined(SpeakerNodes):
    nodes = {**SpeakerNodes.nodes, "dialogue": "dialogue"}  # type: ignore[dict-item] # noqa: RUF012


class Uncounted(SpeakerNodes):
    nodes = {**SpeakerNodes.nodes, "dialogue": Nodes(per="camp")}  # noqa: RUF012


class Beyond(SpeakerNodes):
    def edges(self, conversation):
        return {key: (u, v + 9 * (key[2] == "speaker")) for key, (u, v) in super().edges(conversation).items()}


class Apart(SpeakerNodes):
    """Speakers tell the dialogue, but here no utterance tells a speaker."""

    relations = ("present", "told", "heard", "sums")  # type: ignore[assignment]

    @property
    def edge_types(self):
        within = [(node, "present", node) for node in self.node_types]
        return [*within, ("speaker", "sums", "dialogue"), ("dialogue", "heard", "speaker")]


class NoModule:
    out_width = 8


class Crashing(GraphBuilder):
    relations = ("near",)  # type: ignore[assignment]

    def edges(self, conversation):
        return {}["missing"]


class Undeclared(GraphBuilder):
    relations = ("near",)  # type: ignore[assignment]

    def edges(self, conversation):
        return {("text", "far", "text"): (np.array([0]), np.array([0]))}


class Shapeless(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width / 2


def cls(**annotations):
    """Return a class whose `__init__` has these keyword-only arguments."""
    arguments = ", ".join(f"{name}: {kind}" for name, kind in annotations.items())
    space: dict = {}
    exec(f"class Odd:\n    def __init__(self, *, {arguments}): ...", {"nn": nn}, space)
    space["Odd"].__module__ = "mine"
    return space["Odd"]


def with_init(function):
    """Return a class with this `__init__`."""
    return type("Odd", (), {"__init__": function, "__module__": "mine"})


def scenarios(folder):
    """Yield (title, function that raises)."""

    def file(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    # names
    yield "an unknown part", lambda: registry.find("fusion", "gatd", "mine.yaml:7:12 model.fuse")
    yield "nothing close", lambda: registry.find("head", "zzz")
    yield "a part of another kind", lambda: registry.find("encoder", "gated")
    yield "a part of a package that is not there", lambda: registry.find("fusion", "acme/blend")
    yield "a file without a class", lambda: registry.find("fusion", "./mine.py")
    yield "half a path", lambda: registry.find("fusion", "mine:")
    yield "an unknown kind", lambda: registry.find("fuson", "gated")
    yield "an unknown kind, listed", lambda: registry.cards("fuson")
    yield "kind/name of an unknown kind", lambda: registry.split("fuson/gated")
    yield "a kind without a name", lambda: registry.split("fusion")
    yield "a file that is not there", lambda: registry.load(registry.find("fusion", "./nowhere.py:Mine"))
    yield "a module that is not there", lambda: registry.load(registry.find("fusion", "no_such:Mine"))
    broken = file("crash.py", "1 / 0\n")
    yield "a file that crashes", lambda: registry.load(registry.find("fusion", f"{broken}:Mine"))
    yield (
        "a class that is not there",
        lambda: registry.load(registry.find("fusion", "mer_zoo.parts.fusion.concat:Concta")),
    )
    yield "not a class", lambda: registry.load(registry.find("fusion", "mer_zoo.errors:nearest"))
    # cards
    yield (
        "a card with every fault",
        lambda: registry.read_card(
            Path(file("Odd.yaml", "target: nowhere\nsumary: x\npromises: [casual, linear_size]\nversion: one\n")),
            "fusion",
        ),
    )
    yield "a card that is a list", lambda: registry.read_card(Path(file("odd.yaml", "- x\n")), "fusion")
    file("torn.yaml", "target: torn.py:Torn\n")
    file("torn.py", "class Torn: ...")
    yield "a broken card beside a file", lambda: registry.find("fusion", f"{folder}/torn.py:Torn")

    def broken_card():
        kept = registry.lookup._built_in
        registry.lookup._built_in = lambda: (kept()[0], {"fusion/torn": "torn.yaml:1:1 'summary' is missing. Add it."})
        try:
            registry.find("fusion", "torn")
        finally:
            registry.lookup._built_in = kept

    yield "a broken card asked for by name", broken_card
    yield "register: a name that is taken", lambda: registry.register("encoder", Plain, "linear")
    yield "register: an unknown kind", lambda: registry.register("encodr", Plain)
    yield "register: a wrong promise", lambda: registry.register("encoder", Plain, promises=("casual",))
    # settings
    yield "an unknown setting", lambda: make("fusion", "gated", out_widht=3)
    yield "a part without settings", lambda: make("fusion", "concat", width=3)
    yield "a wrong type", lambda: make("encoder", "bilstm", hidden="wide", dropout=None)
    yield "a number that is too large", lambda: make("graph", "self_cross_speaker", window=10**20)
    yield "not plain data", lambda: make("encoder", "bilstm", hidden=object())
    yield "an unknown fact", lambda: registry.build(registry.find("encoder", "linear"), {}, {})
    yield "an untyped setting", lambda: registry.settings("encoder", Untyped)
    yield (
        "an unknown positional argument",
        lambda: registry.facts("head", with_init(_takes_x)),
    )
    yield (
        "hidden settings",
        lambda: registry.settings("head", with_init(_takes_more)),
    )
    yield "a setting called name", lambda: registry.settings("head", cls(name="str"))
    yield "an annotation that cannot be read", lambda: registry.settings("head", cls(x="'Nowhere'"))
    yield "a setting that is no plain data", lambda: registry.schema("head", cls(x="nn.Linear"))
    yield "a required setting", lambda: registry.construct("head", cls(x="int"), {}, {}, "head/odd")
    # YAML
    yield "no such file", lambda: document.read(folder / "nowhere.yaml")
    yield "not text", lambda: document.read(file("binary.yaml", b"\xff\xfe\x00"))
    yield "not YAML", lambda: document.parse("a: [1\nb: 2\n", "mine.yaml")
    yield "a strange letter", lambda: document.parse("a: \x00\n", "mine.yaml")
    yield "a key twice", lambda: document.parse("a: 1\na: 2\n", "mine.yaml")
    yield "a key that is a list", lambda: document.parse("[1]: 1\n", "mine.yaml")
    yield "YAML without end", lambda: document.parse("# " + "x" * document.LONGEST, "mine.yaml")
    yield "YAML too deep", lambda: document.parse("a: " + "[" * 60, "mine.yaml")
    yield "YAML too large", lambda: document.parse("- 1\n" * 60_000, "mine.yaml")
    yield "an alias of itself", lambda: document.parse("a: &a [*a]\n", "mine.yaml")
    # recipes
    wrong = """
title: Wrong
modle: {}
model:
  join: {fusion: {name: concat}, head: linear}
  pass: {layer: graph_conv, relation: x}
training: {epochs: 0, learning_rate: fast}
"""
    yield "a recipe with every fault", lambda: recipe.read(file("wrong.yaml", wrong))
    parts = """
title: Wrong parts
model:
  join: {fusion: {name: concta}}
  again: {skip: jion}
  judge: {head: {name: linear, relu: maybe, droput: 0.1}}
loss: nil
"""
    yield "a recipe with wrong parts", lambda: filling.fill(recipe.read(file("parts.yaml", parts)), WIDTHS)
    yield "no such recipe", lambda: recipe.read("mmgcm")
    yield "no such recipe file", lambda: recipe.read("nowhere.yaml")
    yield "a recipe that is a list", lambda: recipe.read(file("list.yaml", "- x\n"))
    yield "a recipe that extends nothing", lambda: recipe.read(file("child.yaml", "extends: nothing\n"))
    yield "a recipe that extends itself", lambda: recipe.read(file("loop.yaml", "extends: loop.yaml\n"))
    for number in range(20):
        file(f"chain{number}.yaml", f"extends: chain{number + 1}.yaml\n")
    yield "a chain of recipes without end", lambda: recipe.read(f"{folder}/chain0.yaml")
    yield "a folder for a recipe", lambda: recipe.read(f"{folder}/chain.yaml")
    (folder / "chain.yaml").mkdir()
    yield "a change of nothing", lambda: recipe.read("mmgcn", {"": 1})
    yield "a change that is no plain data", lambda: recipe.read("mmgcn", {"title": object()})
    yield "a modality twice", lambda: recipe.read("mmgcn", ["modalities=[text, text]"])
    yield "a recipe that is not plain data", lambda: recipe.read({"title": "t", "model": object()})
    yield "an override without a value", lambda: recipe.read("mmgcn", ["training.epochs"])
    yield "an override of nothing", lambda: recipe.read("mmgcn", ["trainign.epochs=3"])
    yield "an override of no stage", lambda: recipe.read("mmgcn", ["model.jion.fusion=sum"])
    yield "an override that is no YAML", lambda: recipe.read("mmgcn", ["training.epochs=["])
    yield "an override of a wrong type", lambda: recipe.read("mmgcn", ["training.epochs=many"])
    yield "a modality the data lacks", lambda: filling.fill(recipe.read("mmgcn/iemocap"), {"text": 100}, "meld")
    widths = {"text": 100, "audio": 1582, "visual": 7}
    yield "another width", lambda: filling.fill(recipe.read("mmgcn/iemocap"), widths, "meld")

    # assembly
    def built(graph="", loss="nll", balancing="none", **stages):
        passing = any(isinstance(stage, dict) and stage.keys() & {"layer", "edge_weight"} for stage in stages.values())
        graph = graph or (graph == "" and passing and "self_cross_speaker") or None
        data = {"title": "x", "graph": graph, "model": stages, "loss": loss, "balancing": balancing}
        made = filling.fill(recipe.RecipeFile("x", recipe.Recipe.model_validate(data)), WIDTHS)
        return lambda: assemble(made, FACTS)

    project = {"project": {"encoder": {"name": "linear", "out_width": 8}}}
    end = {"join": {"fusion": "concat"}, "judge": {"head": "linear"}}
    vote = {"judge": {"head": "linear"}, "vote": {"fusion": "logit_sum"}}
    graph_conv = {"layer": "graph_conv"}
    yield "no head", built(**project, join={"fusion": "concat"})
    yield "an encoder after a head", built(**project, **vote, late={"encoder": "norm"})
    yield "a layer without a graph", built(None, **project, hop=graph_conv, **end)
    yield "a layer on both sides of a fusion", built(**project, a=graph_conv, join=end["join"], b=graph_conv)
    yield (
        "a layer that would see nothing",
        built(
            "complete_multimodal", join=end["join"], a={**graph_conv, "relations": "same_utterance"}, judge=end["judge"]
        ),
    )
    scaled = {"title": "x", "model": {**project, **end}, "normalise": {"txet": "train"}}
    file_ = recipe.RecipeFile("x", recipe.Recipe.model_validate(scaled))
    yield "a modality to normalise that is not there", lambda: filling.fill(file_, WIDTHS)
    blank = [replace(DIALOGUE, labels=np.full(len(DIALOGUE), -1))]
    yield "a learner without labels", lambda: make("learner", "majority").fit(blank, blank, ("a", "b"))
    yield "a stage whose name torch keeps", built(**project, pop={"encoder": "norm"}, **end)
    yield "a graph that no stage uses", built("self_cross_speaker", **project, **end)
    with _registered("graph", Undeclared):
        yield "edges that are not declared", built("undeclared", **project, hop=graph_conv, **end)
    with _registered("graph", Speaking):
        yield "nodes of a builder's own", built("speaking", **project, hop=graph_conv, **end)
    alone = {"layer": "graph_conv", "relations": ["present"]}
    yield "nodes that no stage sees", built("speaker_nodes", **project, hop=alone, **end)
    two = {"name": "graph_conv", "out_width": 8}
    pooling = {"join": {"fusion": "concat", "only": ["text", "speaker"]}, "judge": end["judge"]}
    early = {"first": {"encoder": "norm", "only": ["speaker"]}}
    yield "nodes named too early", built("speaker_nodes", **project, **early, hop={"layer": two}, **end)
    judging = {**end, "judge": {"head": "linear", "only": ["speaker"]}}
    yield "nodes to be judged", built("speaker_nodes", **project, hop={"layer": two}, **judging)
    paired = {"pair": {"fusion": "concat", "per": "pair", "only": ["text", "speaker"]}}
    yield "nodes in pairs", built("speaker_nodes", **project, hop={"layer": two}, **paired, **end)
    yield "nodes with padding", built("speaker_nodes", **project, hop={"layer": two}, show={"padding": "shown"}, **end)
    yield "nodes beside a walk", built("speaker_nodes", **project, hop={"layer": "dag_gru"}, **pooling)
    numbered = {"layer": {"name": "bipartite_gcn", "numbered_edges": 100}}
    yield "nodes beside numbered edges", built("speaker_nodes", **project, hop=numbered, **end)
    for title, odd in (("that nobody hears", OneWay), ("called utterance", Misnamed), ("without a number", Uncounted)):
        with _registered("graph", odd):
            yield f"nodes {title}", built(registry.snake_case(odd.__name__), **project, hop=graph_conv, **end)
    for title, odd in (("declared as text", Undefined), ("that are not there", Beyond)):
        with _registered("graph", odd):
            yield f"nodes {title}", built(registry.snake_case(odd.__name__), **project, hop=graph_conv, **end)
    with _registered("graph", Apart):
        yield "nodes apart", built("apart", **project, hop={**graph_conv, "relations": ["present", "sums"]}, **end)
    yield "a convolution misspelt", lambda: make("layer", "pyg", conv="GATConf")
    yield "a convolution over positions", lambda: make("layer", "pyg", conv="PointNetConv")
    yield "a width that heads cannot share", lambda: make("layer", "pyg", conv="GATConv", heads=4, out_width=25)
    yield "a convolution of labels", lambda: make("layer", "pyg", conv="DNAConv")
    weighted = {"angle": {"edge_weight": "similarity"}, "hop": {"layer": {"name": "pyg", "conv": "SAGEConv"}}}
    yield "weights that a convolution would lose", built(**project, **weighted, **end)
    with _registered("encoder", Shapeless):
        yield "a width that is none", built(**project, odd={"encoder": "shapeless"}, **end)
    late = {"fusion": "sum", "into": "late"}
    yield "a state beside what is fused", built(**project, join=end["join"], late=late, judge=end["judge"])
    yield "an unknown relation", built(**project, hop={**graph_conv, "relations": "same_speker_*"}, **end)
    yield "a modality misspelt", lambda: built(join={"fusion": "concat", "only": ["txet"]}, judge=end["judge"])
    yield "a fusion of nothing", built(join={"fusion": "concat", "only": ["utterance"]}, judge=end["judge"])
    yield "a layer over different widths", built("complete_multimodal", hop=graph_conv, **end)
    yield "a skip across a fusion", built(**project, join=end["join"], back={"skip": "project"}, judge=end["judge"])
    with _registered("encoder", Plain):
        yield "a part without out_width", built(**project, odd={"encoder": "plain"}, **end)
    yield "a stage that torch could not name", built(**project, pop={"encoder": "norm"}, **end)
    with _registered("encoder", NoModule), _registered("loss", NoModule), _registered("graph", NoModule):
        yield "a part that is no module", built(**project, odd={"encoder": "no_module"}, **end)
        yield "a loss that is no module", built(**project, **end, loss="no_module")
        yield "a graph that is no builder", built("no_module", **project, hop=graph_conv, **end)
    with _registered("graph", Crashing):
        yield "a graph that crashes", built("crashing", **project, hop=graph_conv, **end)
    yield (
        "a window that looks backwards",
        built({"name": "self_cross_speaker", "window": -5}, **project, hop=graph_conv, **end),
    )
    with _registered("encoder", Flat):
        yield "a part that fails", built(**project, odd={"encoder": "flat"}, **end)
    with _registered("graph", Raising):
        yield "a graph that refuses", built("raising", **project, hop=graph_conv, **end)
    apart = {"judge": {"head": "linear"}, "sum": {"fusion": "logit_sum"}}
    yield "a loss that contrasts what is judged", built(**project, **apart, loss="focal_contrastive")
    yield "a loss that needs heads", built(**project, **end, loss="self_distillation")
    yield "the other loss that needs heads", built(**project, **end, loss="unimodal_squared")
    yield "a balancing that needs heads", built(**project, **end, balancing="mmpareto")
    yield "a balancing that needs encoders", built(None, **vote_alike(), balancing="ogm_ge")
    shown, hidden = {"padding": "shown"}, {"padding": "hidden"}
    pairs = {"fusion": "concat", "per": "other"}
    yield "padding shown twice", built(a=shown, b=shown, c=hidden, **end)
    yield "a head on padding", built(a=shown, **end)
    yield "a layer on padding", built(**project, a=shown, hop=graph_conv, b=hidden, **end)
    yield "a skip out of padding", built(a=shown, b={"encoder": "norm"}, c=hidden, d={"skip": "b"}, **end)
    yield "a decision on pairs", built(a=pairs, **end)
    yield "pairs of an utterance", built(join=end["join"], a=pairs, judge=end["judge"])
    yield "nothing to gather", built(a={"fusion": "concat", "per": "target"}, **end)
    yield "an addition of other widths", built(n={"encoder": "norm"}, **project, a={"add": {"n": 1.0}}, **end)
    yield "a head without its task", built(**project, join=end["join"], judge={"head": "pair_shift"})

    def tasked(weights, **stages):
        data = {"title": "x", "tasks": {"mood": 2}, "model": stages}
        loss = {"name": "multi_task", "weights": weights}
        made = filling.fill(recipe.RecipeFile("x", recipe.Recipe.model_validate({**data, "loss": loss})), WIDTHS)
        return lambda: assemble(made, FACTS)

    mood = {"mood": {"head": "linear", "task": "mood"}}
    yield "a task of one modality", tasked({"mood": 1.0}, **mood, **end)
    yield "a task without a weight", tasked({}, join=end["join"], **mood, judge=end["judge"])
    yield "a weight without a task", tasked({"mood": 1.0, "age": 1.0}, join=end["join"], **mood, judge=end["judge"])
    yield "a width that does not divide", built(t={"encoder": {"name": "transformer", "heads": 5}}, **end)
    yield (
        "position attention over modalities",
        built("complete_multimodal", **project, w={"edge_weight": "position_attention"}, hop=graph_conv, **end),
    )
    # parts
    yield "one modality to balance", lambda: make("balancing", "opm", {"modalities": ("text",)})
    yield "agm: too many modalities", lambda: make("balancing", "agm", {"modalities": tuple("abcde")})
    for name in ("agm", "ogm_ge", "pmr"):
        yield f"{name}: no strength", lambda name=name: make("balancing", name, alpha=0.0)
    yield "g_blending: a share", lambda: make("balancing", "g_blending", held_out=1.0)
    yield "g_blending: nothing held out", lambda: make("balancing", "g_blending").on_epoch_start(1, lambda n: [])
    yield "modality_dropout: a modality", lambda: make("balancing", "modality_dropout", rate={"txet": 0.5})
    yield "modality_dropout: a rate", lambda: make("balancing", "modality_dropout", rate=1.0)
    yield "chunk_mean: chunks", lambda: make("encoder", "chunk_mean", chunks=4)
    yield "reasoning: one step", lambda: make("encoder", "reasoning", steps=1)
    yield "tensor: too large", lambda: make("fusion", "tensor", hidden=1000)
    yield "sum: widths", lambda: make("fusion", "sum")
    yield "pairwise: one modality", lambda: make("fusion", "pairwise", {"widths": {"text": 6}})
    yield "low rank: a modality", lambda: make("fusion", "tensor", hidden={"text": 3, "audoi": 2})
    yield "low rank: a number", lambda: make("fusion", "tensor", hidden={"text": 3})
    yield "film: a modality", lambda: make("fusion", "film", condition="txet")
    yield "logit_sum: widths", lambda: make("fusion", "logit_sum")
    yield "bipartite: one modality", lambda: make("graph", "bipartite_window", {"node_types": ("text",)})
    yield "dag: turns", lambda: make("graph", "dag", turns=0)
    yield "dag: too many edges", lambda: type("Dag", (Dag,), {"max_edges": 2})(("text",))(DIALOGUE)
    yield "a graph too large", lambda: type("Full", (CompleteMultimodal,), {"max_edges": 2})(("text",))(DIALOGUE)
    yield "k_nearest: k", lambda: make("graph", "k_nearest", k=0)
    yield "k_nearest: a modality", lambda: make("graph", "k_nearest", modality="audoi")(DIALOGUE)
    yield "a relation", lambda: select("same_spekaer", ["same_speaker"], "mine.yaml:3:1 model.hop.relations")
    yield "differential_dot: width", lambda: make("layer", "differential_dot", heads=4)
    yield "differential_dot: key heads", lambda: make("layer", "differential_dot", heads=3, key_heads=2)
    yield "gat: heads", lambda: make("layer", "gat", heads=3, out_width=10)
    yield "hypergraph: numbering", lambda: make("layer", "hypergraph", normalise="batch_position")
    yield "nll: weights", lambda: make("loss", "nll", class_weights=[1.0])
    yield "a loss that sums heads", built(**project, **end, loss="unimodal_sum")
    yield "unimodal_sum: share", lambda: make("loss", "unimodal_sum", share=-1.0)
    yield "focal_contrastive: shares", lambda: make("loss", "focal_contrastive", contrast=0.8)
    yield "focal_contrastive: focus", lambda: make("loss", "focal_contrastive", focus=0.5)
    yield "self_distillation: temperature", lambda: make("loss", "self_distillation", temperature=0.0)
    yield "dialogue_contrastive: weight", lambda: make("loss", "dialogue_contrastive", weight=0.0)
    shown = Output(torch.zeros(4, 6), {}, {"text": torch.zeros(6, 2)})
    contrast = make("loss", "dialogue_contrastive")
    yield "dialogue_contrastive: padding", lambda: contrast(shown, torch.zeros(4).long(), losses.layout_of((4,)))
    yield "loss: asks for more", lambda: loss_base.seen_by(_Asking)
    yield "loss: a label column", lambda: loss_base.Targets(mood=torch.zeros(1))["moood"]
    yield "by path: a name", lambda: OPTIMIZERS.find("adm")
    yield "by path: no plain data", lambda: SCHEDULES.fill("torch.optim.lr_scheduler.LambdaLR", {})
    yield "kernel: several edges", lambda: Corpus([DIALOGUE], Raising(("text",)), [(("text",), "*")], kernels=Dense)
    # new parts and checks
    yield "new: an unknown kind", lambda: new.new("fuson", "mine", folder)
    yield "new: not a name", lambda: new.new("fusion", "MyFusion", folder)
    file("there.py", "")
    yield "new: already there", lambda: new.new("fusion", "there", folder)
    yield "new: a file for a folder", lambda: new.new("fusion", "mine", folder / "there.py")
    yield "check: a broken part", lambda: check_part("encoder", Plain)
    yield "check: an unknown check", lambda: check_part("encoder", "linear", only="isolatoin")
    yield "check: an unknown promise", lambda: check_part("encoder", Plain, promises=["casual", "linear_size"])
    bib = Path(file("x.bib", "@misc{x, title={A}, year={2020}}"))
    yield "references: a field", lambda: references.read(bib)
    torn = Path(file("y.bib", "@misc{x, title={A, year={2020}"))
    yield "references: a brace", lambda: references.read(torn)
    yield (
        "references: a year",
        lambda: references.read(Path(file("v.bib", "@misc{x, title={A}, author={B}, year={soon}}"))),
    )
    yield "references: not text", lambda: references.read(Path(file("w.bib", b"\xff\xfe\xff")))
    twice = Path(file("z.bib", "@misc{x, title={A}, author={B}, year={2020}}\n" * 2))
    yield "references: a key twice", lambda: references.read(twice)


def vote_alike():
    """Return stages in which no modality has parameters of its own before the decision."""
    return {"join": {"fusion": {"name": "gated", "out_width": 8}}, "judge": {"head": "linear"}}


class Flat(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width

    def forward(self, x, dialogues):
        return x @ torch.ones(2, 2)


class _Asking:
    def forward(self, output, labels, speakers): ...


def _takes_x(self, x: int) -> None: ...


def _takes_more(self, **more: int) -> None: ...


@contextlib.contextmanager
def _registered(kind, part):
    name = registry.snake_case(part.__name__)
    registry.lookup._registered[kind, name] = (registry.Card(kind, name, "mine:Part"), part)
    try:
        yield
    finally:
        del registry.lookup._registered[kind, name]


@contextlib.contextmanager
def noted(made):
    """Add the (file, line) of every error made inside to a set."""
    kept = MerZooError.__init__

    def init(self, *arguments):
        frame = sys._getframe(1)
        made.add((frame.f_code.co_filename, frame.f_lineno))
        kept(self, *arguments)

    MerZooError.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        MerZooError.__init__ = kept  # type: ignore[method-assign]


def visited():
    """Return title and text of every refusal, and the (file, line) of every error made on the way."""
    made, texts = set(), {}
    with noted(made), tempfile.TemporaryDirectory() as name:
        for title, act in scenarios(Path(name)):
            assert title not in texts, f"two refusals are called '{title}'"
            try:
                act()
                texts[title] = ""
            except MerZooError as error:
                texts[title] = str(error)
    return texts, made


def missed(path, made):
    """Return the lines of a file where something is refused that neither a scenario nor its own examples show."""

    def unseen():
        lines = {line for file, line in made if Path(file) == path}
        found = [(first, last) for function, first, last in sites(path) if function not in ELSEWHERE]
        return [first for first, last in found if not lines & set(range(first, last + 1))]

    if unseen():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts) if path.is_relative_to(ROOT) else str(path)
        module = registry.lookup._module_from_file(name) if name == str(path) else importlib.import_module(name)
        with noted(made):
            assert doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed == 0
    return unseen()


def sites(path):
    """Return (function, first line, last line) of every `MerZooError(...)` in a file."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MerZooError":
            inside = [f.name for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
            yield inside[-1] if inside else "", node.lineno, node.end_lineno


def test_every_refusal_is_one_plain_message():
    texts, _ = visited()
    assert [title for title, text in texts.items() if not text] == []  # each of them is refused
    for title, text in texts.items():
        assert "Traceback" not in text, title
        assert "object at 0x" not in text, title


def test_every_place_that_refuses_is_visited():
    _, made = visited()
    paths = [path for pattern in COVERED for path in sorted((ROOT / "mer_zoo").glob(f"{pattern}.py"))]
    paths = [path for path in paths if path.parent.name not in ("importer", "tracker")]
    assert [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in missed(path, made)] == []


def test_a_part_shows_its_own_refusals(tmp_path):
    """So a new part changes no other file: what its docstring's example shows counts as visited."""
    text = '''
from mer_zoo.errors import MerZooError

class Fresh:
    """Refuses.

    Example:
        >>> Fresh(rate=2.0)
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: rate must be at most 1.
    """

    def __init__(self, *, rate: float = 0.5) -> None:
        if rate > 1:
            raise MerZooError("rate must be at most 1.")
'''
    (tmp_path / "fresh.py").write_text(text)
    assert missed(tmp_path / "fresh.py", set()) == []
    (tmp_path / "silent.py").write_text(text.replace(">>>", "..."))
    assert len(missed(tmp_path / "silent.py", set())) == 1


if __name__ == "__main__":
    print("\n\n".join(f"## {title}\n{text}" for title, text in visited()[0].items()))
