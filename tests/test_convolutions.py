"""Convolutions of PyG and DGL as layers: every one assembles, trains a step, and keeps the contract of layers."""

import json
import tempfile
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch

from docs.generator import convolutions
from mer_zoo import registry
from mer_zoo.checking import batching, promises
from mer_zoo.checking.part import Part, close
from mer_zoo.checking.small_data import WIDTHS, conversations, tiny_batch
from mer_zoo.checking.subject import Subject
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL as DGLKernel
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.budget import refuse_other_weights
from mer_zoo.model.model import Facts
from mer_zoo.model.step import Step, companions
from mer_zoo.parts.layer.dgl import DGL
from mer_zoo.parts.layer.pyg import PyG
from mer_zoo.parts.ops import convolution

CLASS = {"pyg": PyG, "dgl": DGL}
EVERY = [(library, name) for library, cls in CLASS.items() for name in sorted(cls.convolutions())]
FACTS = Facts(WIDTHS, 3, 6)


@cache
def survey(library):
    """Return what is known of every convolution of a library, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {entry.name: entry for entry in convolutions.survey(library)}


def good(library):
    """Return those that can be layers."""
    return [entry for entry in survey(library).values() if entry.layer]


def plan_of(layer, weight=None):
    stages = {
        "project": {"encoder": {"name": "linear", "out_width": 16}},
        **({"angle": {"edge_weight": weight}} if weight else {}),
        "hop": {"layer": layer},
        "join": {"fusion": "concat"},
        "classify": {"head": "linear"},
    }
    path = Path(tempfile.mkdtemp()) / "mine.yaml"
    path.write_text(json.dumps({"title": "Mine.", "graph": "self_cross_speaker", "model": stages}))
    return filling.fill(recipe.read(str(path)), WIDTHS)


def stepped(plan):
    """Return a model before and after a step of training, and its loss."""
    model = assemble(plan, FACTS)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    corpus = Corpus(conversations([5, 1, 3]), model.builder, model.views)
    step = Step(model, *companions(plan, FACTS))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    total, output, labels = step(corpus.batch([0, 1, 2]))
    step.backward(total, output, labels)
    optimizer.step()
    return model, before, float(total.detach())


def test_there_are_as_many_as_the_page_says():
    assert len(good("pyg")) >= 40
    assert len(good("dgl")) >= 20


@pytest.mark.parametrize(("library", "name"), EVERY)
def test_it_trains_a_step_and_keeps_dialogues_apart_or_says_why_not(library, name):
    entry = survey(library)[name]
    if entry.layer is None:
        assert entry.reason
        return
    settings = {"conv": name, **entry.settings}
    model, before, loss = stepped(plan_of({"name": library, **settings}))
    assert loss == loss
    assert loss < 100
    hop = [name for name, x in model.stages["hop"].named_parameters() if x.grad is not None]
    changed = [
        name for name in hop if not torch.equal(before[f"stages.hop.{name}"], model.state_dict()[f"stages.hop.{name}"])
    ]
    assert bool(changed) == bool(list(model.stages["hop"].parameters()))

    subject = Subject(Part("layer", CLASS[library], f"layer/{library}", settings=settings))
    module, names = subject.build(), ("seven", "eleven", "three")  # not in float64, which some refuse
    with torch.no_grad():
        alone, together = (subject.outputs(module, subject.batch(*these)) for these in (("eleven",), names))
    for scenario, output in together.items():
        assert close(output.split(subject.rows(scenario, *names))[1], alone[scenario], 1e-4)
    if entry.layer.capturable:
        assert entry.name not in ("GraphConv", "TransformerConv") or promises.capturable(subject) is None
        assert batching.padding(subject) is None
    if entry.layer.stackable:
        assert batching.stacking(subject) is None


@pytest.mark.parametrize("library", CLASS)
def test_the_page_lists_them(library):
    text = convolutions.PAGE.read_text(encoding="utf-8")
    cls, package = convolutions.LIBRARIES[library]
    if f"of {cls.library} {convolutions.importlib.metadata.version(package)}\n" not in text:
        pytest.skip("the page is about another version")
    assert convolutions.section(library, survey(library).values()) in text, (
        "run `python -m docs.generator.convolutions`"
    )


def test_every_kernel_gives_the_same_edges():
    batches = {}
    for kernel in (Segment, Dense, Band, Planes, DGLKernel):
        corpus = Corpus(conversations([5, 1, 3]), *graph_of_two(), kernels=kernel)
        (edges,) = corpus.batch([2, 0, 1]).views.values()
        batches[kernel] = edges
        weights = edges.mask(edges.source(torch.arange(edges.nodes).float()) * edges.ones)
        assert torch.equal(edges.edge_values(weights).long(), edges.edge_index[0])
    want = batches[Segment]
    for edges in batches.values():
        assert torch.equal(edges.edge_index, want.edge_index)
        assert torch.equal(edges.edge_type, want.edge_type)
        graph = edges.dgl_graph()
        assert graph.num_nodes() == edges.nodes
        assert torch.equal(torch.stack(graph.edges(order="eid")), want.edge_index)
        assert torch.equal(graph.edata["relation"], want.edge_type)
    assert want.dialogue.tolist() == [0] * 6 + [1] * 10 + [2] * 2


def graph_of_two():
    from mer_zoo.graph.complete_multimodal import CompleteMultimodal

    return CompleteMultimodal(("text", "audio")), [(("text", "audio"), ["*"])]


def test_an_unknown_setting_and_convolution_name_the_nearest():
    with pytest.raises(MerZooError, match=r"layer/pyg has no setting 'haeds'. Did you mean 'heads'"):
        plan_of({"name": "pyg", "conv": "GATConv", "haeds": 2})
    with pytest.raises(MerZooError, match=r"no convolution 'GATv3Conv'. Did you mean 'GATv2Conv'"):
        plan_of({"name": "pyg", "conv": "GATv3Conv"})
    with pytest.raises(MerZooError, match="setting 'heads' of layer/pyg"):
        plan_of({"name": "pyg", "conv": "GATConv", "heads": "four"})
    with pytest.raises(MerZooError, match="needs the setting 'K'"):
        plan_of({"name": "pyg", "conv": "ChebConv"})
    with pytest.raises(MerZooError, match="has no setting 'cached'"):
        plan_of({"name": "pyg", "conv": "GCNConv", "cached": True})


def test_defaults_of_the_convolution_are_written_into_the_plan():
    hop = plan_of({"name": "pyg", "conv": "GATConv"}).model["hop"].plain()["layer"]
    assert hop["negative_slope"] == 0.2
    assert "in_channels" not in hop
    assert "edge_dim" not in hop


@pytest.mark.parametrize(
    ("library", "settings"),
    [("pyg", {"conv": "GATConv", "heads": 4}), ("dgl", {"conv": "GATConv", "num_heads": 4})],
)
def test_heads_share_the_width(library, settings):
    layer = registry.build(
        registry.find("layer", library), {**settings, "out_width": 24}, {"width": 16, "relations": ("a", "b")}
    )
    assert layer.out_width == 24
    with pytest.raises(MerZooError, match="out_width: GATConv gives 100 with these settings, not 25"):
        registry.build(
            registry.find("layer", library), {**settings, "out_width": 25}, {"width": 16, "relations": ("a",)}
        )


def test_weights_that_would_be_lost_are_refused():
    with pytest.raises(MerZooError, match="SAGEConv takes no edge weights with these settings, so they would be lost"):
        assemble(plan_of({"name": "pyg", "conv": "SAGEConv"}, weight="similarity"), FACTS)


def test_weights_that_a_stage_made_reach_the_convolution():
    """The two stages must see one layout of the edges, or the weights are for another."""
    plan = plan_of({"name": "pyg", "conv": "GraphConv"}, weight="similarity")
    model = assemble(plan, FACTS)
    batch = Corpus(conversations([5, 3]), model.builder, model.views).batch([0, 1])
    weighted = model(batch).logits
    for stage in model.stages.values():
        if stage.kind == "edge_weight":
            stage.act = lambda flow: flow
    assert not torch.allclose(model(batch).logits, weighted)


def test_a_convolution_is_what_it_is_in_its_own_library():
    geometric = pytest.importorskip("torch_geometric.nn")
    batch = tiny_batch()
    (edges,) = batch.views.values()
    x = batch.features["text"]
    weights = edges.mask(edges.target(torch.linspace(0.1, 1, 10)) * edges.ones)
    ours = PyG(6, edges.names, conv="GCNConv", out_width=4)
    theirs = geometric.GCNConv(6, 4)
    theirs.load_state_dict(ours.inner.state_dict())
    wanted = theirs(x, edges.edge_index, edges.edge_values(weights))
    torch.testing.assert_close(ours(x, edges, weights), wanted)
    ours = PyG(6, edges.names, conv="RGCNConv", out_width=4)
    theirs = geometric.RGCNConv(6, 4, len(edges.names))
    theirs.load_state_dict(ours.inner.state_dict())
    torch.testing.assert_close(ours(x, edges, None), theirs(x, edges.edge_index, edges.edge_type))


def test_a_graph_on_a_gpu_needs_a_dgl_for_it(monkeypatch):
    from mer_zoo.graph import dgl_import

    class OnGPU:
        device = torch.device("cuda")

    monkeypatch.setattr(dgl_import, "is_for_cuda", lambda: False)
    with pytest.raises(MerZooError, match=r"built for CPUs alone .* or the layer `pyg`"):
        dgl_import.graph_of(OnGPU(), None)


class Pooling(torch.nn.Module):
    """One row for all nodes."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.map = torch.nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return self.map(x).mean(0, keepdim=True)


def test_a_convolution_must_give_a_row_for_every_node(monkeypatch):
    monkeypatch.setattr(PyG, "convolutions", classmethod(lambda cls: {"Pooling": Pooling}))
    plan = plan_of({"name": "pyg", "conv": "Pooling"})
    with pytest.raises(MerZooError, match=r"Pooling gives \[1, 16\] for four nodes, not a row of numbers for each"):
        assemble(plan, FACTS)


def test_the_edges_are_a_list_only_for_who_asks():
    plan = plan_of({"name": "pyg", "conv": "SAGEConv"})
    model = assemble(plan, FACTS)
    batch = Corpus(conversations([5, 3]), model.builder, model.views).batch([0, 1])
    assert {type(edges) for edges in batch.views.values()} == {Segment}
    model = assemble(plan_of({"name": "gat", "out_width": 16}), FACTS)
    batch = Corpus(conversations([5, 3]), model.builder, model.views).batch([0, 1])
    assert {type(edges) for edges in batch.views.values()} == {Dense}


def test_every_convolution_is_read_back_from_its_weights():
    """A file's model is sketched without memory first, and that leaves no trace."""
    for library, entry in [(one, entry) for one in CLASS for entry in good(one)]:
        plan = plan_of({"name": library, "conv": entry.name, **entry.settings})
        model = assemble(plan, FACTS)
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        known = dict(convolution._trials)
        refuse_other_weights(plan, FACTS, shapes)
        assert known == convolution._trials, (library, entry.name)
    with pytest.raises(MerZooError, match="has shape"):
        refuse_other_weights(plan, FACTS, {**shapes, next(iter(shapes)): (2, 3)})
