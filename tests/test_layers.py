"""Layers and edge weights: all kernels agree, equal libraries where these have the layer, equal published numbers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity_numbers import numbers

from mer_zoo import registry
from mer_zoo.batch.index import Shape
from mer_zoo.checking.small_data import conversations, tiny_batch
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder, window_pairs
from mer_zoo.graph.complete_multimodal import CompleteMultimodal
from mer_zoo.graph.dag import Dag
from mer_zoo.graph.hypergraph import Hypergraph as HypergraphBuilder
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.graph.speaker_window import SpeakerWindow
from mer_zoo.graph.temporal_modality import TemporalModality
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.segment import Segment
from mer_zoo.parts.layer.dag_gru import DagGRU
from mer_zoo.parts.layer.differential_dot import DifferentialDot
from mer_zoo.parts.layer.differential_gat import DifferentialGAT
from mer_zoo.parts.layer.gat import GAT
from mer_zoo.parts.layer.gat_mlp import GATMLP
from mer_zoo.parts.layer.gated_gcnii import GatedGCNII
from mer_zoo.parts.layer.gatv2 import GATv2
from mer_zoo.parts.layer.gcnii import GCNII
from mer_zoo.parts.layer.graph_conv import GraphConv
from mer_zoo.parts.layer.graph_transformer import GraphTransformer
from mer_zoo.parts.layer.hypergraph import Hypergraph
from mer_zoo.parts.layer.relational_gat import RelationalGAT
from mer_zoo.parts.layer.rgcn import RGCN
from mer_zoo.parts.layer.signed_frequency import SignedFrequency

KERNELS = [Segment, Dense, Band, DGL]
WIDTH = 8


class RandomGraph(GraphBuilder):
    """Any pair of utterances, with one relation of three, by chance."""

    @property
    def relations(self):
        return ("a", "b", "c")

    def edges(self, conversation):
        draw = np.random.default_rng(len(conversation))
        source, target = window_pairs(len(conversation), 99, 99)
        relation = draw.integers(6, size=len(source))  # half of the pairs have no edge
        relation[source == target] = 0
        return {
            (node, name, node): (source[relation == r], target[relation == r])
            for node in self.node_types
            for r, name in enumerate(self.relations)
        }


def bound(builder, kernel=Segment, lengths=(7, 1, 5), relations="*", dialogues=None):
    """Return the batch of all dialogues and its edges among all node types of the builder."""
    dialogues = dialogues or conversations(lengths, widths={m: 4 for m in ("text", "audio", "visual")})
    corpus = Corpus(dialogues, builder, [(builder.node_types, relations)], kernels=kernel)
    batch = corpus.batch(range(len(dialogues)))
    return batch, next(iter(batch.views.values()))


@pytest.fixture
def graph():
    """Return a batch and the edges of a random graph, with their list and relations as other libraries want them."""
    torch.manual_seed(0)
    _, edges = bound(RandomGraph(("text",)))
    every = torch.arange(edges.nodes)
    index = torch.stack([edges.source(every), edges.target(every)])
    return torch.randn(edges.nodes, WIDTH), edges, index, edges.one_hot.argmax(0)


def made(card, builder):
    facts = {"width": WIDTH, "relations": builder.relations, "speakers": 3}
    return registry.build(card, {}, facts).eval()


# every kernel


BUILDERS = {
    "one node type": SelfCrossSpeaker(("text",), window=3),
    "three node types": HypergraphBuilder(("text", "audio", "visual")),
}


@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)
@pytest.mark.parametrize("card", registry.cards("layer") + registry.cards("edge_weight"), ids=lambda card: card.id)
def test_kernels_agree_forward_and_backward(card, builder):
    torch.manual_seed(0)
    if card.name == "position_attention" and len(builder.node_types) > 1:
        with pytest.raises(MerZooError, match="one node type"):
            outcome(card, builder, Segment)
        return
    first, *others = (outcome(card, builder, kernel) for kernel in KERNELS)
    for kernel, other in zip(KERNELS[1:], others, strict=True):
        for expected, got in zip(first, other, strict=True):
            torch.testing.assert_close(
                got, expected, rtol=1e-6, atol=1e-9, msg=lambda m, k=kernel: f"{k.__name__}: {m}"
            )


def outcome(card, builder, kernel):
    """Output, gradient of the input, and gradients of the parameters."""
    torch.manual_seed(1)
    batch, edges = bound(builder, kernel)
    part = made(card, builder).double()
    for parameter in part.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.randn(edges.nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    if card.kind == "layer":
        result = part(x, edges, None)
        direction = torch.randn_like(result)
    else:
        values = edges.edge_values(part(x, edges, batch.layout))
        order = torch.argsort(edges.edge_values(edges.target(torch.arange(edges.nodes)) * 999.0), stable=True)
        result = values[order]
        direction = torch.randn_like(result)
    parameters = list(part.parameters())
    gradients = torch.autograd.grad((result * direction).sum(), [x, *parameters], allow_unused=True)
    return [result.detach(), *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS)
def test_kernels_lay_out_by_distance_alike(builder):
    nodes = None
    for kernel in KERNELS:
        _, edges = bound(builder, kernel)
        torch.manual_seed(0)
        x = torch.randn(3, edges.nodes)
        y = edges.mask(edges.source(x) * edges.target(x.flip(0)))
        laid = edges.by_distance(y)
        assert laid.shape == (3, 3, 7 * edges.nodes_per_utterance, 2 * edges.reach + 1)
        summed = edges.unpad(laid.sum(-1, keepdim=True)).squeeze(-1)
        torch.testing.assert_close(summed, edges.sum(y))
        nodes = laid if nodes is None else nodes
        torch.testing.assert_close(laid, nodes)
        torch.testing.assert_close(edges.unpad(edges.pad(x.t())), x.t())


@pytest.mark.parametrize("card", registry.cards("layer"), ids=lambda card: card.id)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_rows_of_no_dialogue_change_nothing(card, kernel):
    builder = BUILDERS["one node type"]
    corpus = Corpus(conversations((7, 3)), builder, [(("text",), "*")], kernels=kernel)
    part = made(card, builder)
    plain, padded = corpus.batch([0, 1]), corpus.batch(corpus.index([0, 1, 2], Shape(utterances=16)))
    x = torch.randn(10, WIDTH)
    expected = part(x, next(iter(plain.views.values())), None)
    got = part(F.pad(x, (0, 0, 0, 6), value=9.0), next(iter(padded.views.values())), None)
    torch.testing.assert_close(got[:10], expected)
    assert got.isfinite().all()


STACKABLE = [card for kind in ("layer", "edge_weight") for card in registry.cards(kind) if card.stackable]


@pytest.mark.parametrize("card", STACKABLE, ids=lambda card: card.id)
def test_parts_stack_under_vmap(card):
    builder = BUILDERS["one node type"]
    batch, edges = bound(builder, Dense)
    parts = [made(card, builder) for _ in range(2)]
    x = torch.randn(2, edges.nodes, WIDTH)
    last = None if card.kind == "layer" else batch.layout

    def call(parameters, x):
        return torch.func.functional_call(parts[0], parameters, (x, edges, last))

    stacked = torch.func.vmap(call)(torch.func.stack_module_state(parts)[0], x)
    for i, part in enumerate(parts):
        torch.testing.assert_close(stacked[i], part(x[i], edges, last), rtol=1e-4, atol=1e-6)


# other libraries


def pyg():
    return pytest.importorskip("torch_geometric.nn", reason="PyTorch Geometric is not installed")


@pytest.mark.parametrize("combine", ["concat", "mean"])
def test_gat_is_that_of_pyg(graph, combine):
    x, edges, index, _ = graph
    ours = GAT(WIDTH, out_width=6, heads=3, combine=combine)
    inner = 2 if combine == "concat" else 6
    theirs = pyg().GATConv(WIDTH, inner, heads=3, concat=combine == "concat", add_self_loops=False)
    with torch.no_grad():
        ours.bias.normal_()
        theirs.lin.weight.copy_(ours.map.weight)
        theirs.att_dst[0] = ours.target_score
        theirs.att_src[0] = ours.source_score
        theirs.bias.copy_(ours.bias)
    torch.testing.assert_close(ours(x, edges, None), theirs(x, index))


@pytest.mark.parametrize("combine", ["concat", "mean"])
def test_gatv2_is_that_of_pyg(graph, combine):
    x, edges, index, _ = graph
    ours = GATv2(WIDTH, out_width=6, heads=3, combine=combine)
    inner = 2 if combine == "concat" else 6
    theirs = pyg().GATv2Conv(WIDTH, inner, heads=3, concat=combine == "concat", add_self_loops=False)
    with torch.no_grad():
        ours.bias.normal_()
        theirs.lin_l.load_state_dict(ours.source_map.state_dict())
        theirs.lin_r.load_state_dict(ours.target_map.state_dict())
        theirs.att[0] = ours.score
        theirs.bias.copy_(ours.bias)
    torch.testing.assert_close(ours(x, edges, None), theirs(x, index))


def test_gat_mlp_is_its_equation_node_by_node(graph):
    x, edges, (source, target), relation = graph
    layer = GATMLP(WIDTH, edges.names, heads=2, depth=2, dropout=0.0)
    inner = layer.attention
    with torch.no_grad():
        inner.relation.normal_()
        inner.bias.normal_()
    h = x
    for _ in range(2):
        values, asked = (m(h).view(-1, 2, WIDTH) for m in (inner.source_map, inner.target_map))
        seen = []
        for node in range(edges.nodes):
            here = (target == node).nonzero().flatten()
            pair = asked[node] + values[source[here]] + inner.relation[:, :, relation[here]].permute(2, 0, 1)
            scores = (F.leaky_relu(pair, 0.2) * inner.score).sum(-1).softmax(0)
            seen.append((scores.unsqueeze(-1) * values[source[here]]).sum(0).mean(0))
        h = layer.norm(h + torch.stack(seen) + inner.bias)
        h = layer.feed.norm(h + layer.feed.narrow(F.gelu(layer.feed.widen(h))))
    torch.testing.assert_close(layer(x, edges, None), h)


def test_graph_transformer_is_that_of_pyg(graph):
    x, edges, index, _ = graph
    ours = GraphTransformer(WIDTH, out_width=6, heads=3)
    theirs = pyg().TransformerConv(WIDTH, 2, heads=3)
    for mine, name in ((ours.query, "query"), (ours.key, "key"), (ours.value, "value"), (ours.root, "skip")):
        getattr(theirs, f"lin_{name}").load_state_dict(mine.state_dict())
    torch.testing.assert_close(ours(x, edges, None), theirs(x, index))


@pytest.mark.parametrize(("normalise", "aggr"), [("none", "add"), ("mean", "mean")])
@pytest.mark.parametrize("bases", [None, 2, 4])
def test_rgcn_is_that_of_pyg(graph, normalise, aggr, bases):
    x, edges, index, relation = graph
    ours = RGCN(WIDTH, edges.names, out_width=6, bases=bases, normalise=normalise)
    theirs = pyg().RGCNConv(WIDTH, 6, 3, num_bases=bases, aggr=aggr)
    with torch.no_grad():
        theirs.weight.copy_(ours.basis)
        theirs.root.copy_(ours.root)
        theirs.bias.copy_(ours.bias)
        if bases:
            theirs.comp.copy_(ours.mixture)
    torch.testing.assert_close(ours(x, edges, None), theirs(x, index, relation))


def test_graph_conv_is_that_of_pyg(graph):
    x, edges, index, _ = graph
    ours = GraphConv(WIDTH, out_width=6, weighted=True)
    theirs = pyg().GraphConv(WIDTH, 6)
    weights = edges.mask(torch.rand(index.shape[1]))
    with torch.no_grad():
        theirs.lin_rel.weight.copy_(ours.neighbours.weight)
        theirs.lin_rel.bias.copy_(ours.root.bias)
        theirs.lin_root.weight.copy_(ours.root.weight)
    torch.testing.assert_close(ours(x, edges, weights), theirs(x, index, weights))


def test_gcnii_is_that_of_pyg():
    x, edges, index = symmetric()
    ours = GCNII(WIDTH, hidden=6, depth=3, alpha=0.2, dropout=0.0)
    h = start = ours.first(x).relu()
    for level, matrix in enumerate(ours.maps, 1):
        theirs = pyg().GCN2Conv(6, 0.2, theta=0.5, layer=level, shared_weights=False, add_self_loops=False)
        # the variant maps [z; h0], so of PyG's (1 - alpha) z W1 + alpha h0 W2 the shares are divided out
        with torch.no_grad():
            theirs.weight1.copy_(matrix[:6] / 0.8)
            theirs.weight2.copy_(matrix[6:] / 0.2)
        h = theirs(h, start, index).relu()
    torch.testing.assert_close(ours(x, edges, None), h, rtol=1e-4, atol=1e-5)


def test_signed_frequency_is_fagcn_of_pyg():
    x, edges, index = symmetric()
    ours = SignedFrequency(WIDTH, depth=1)
    theirs = pyg().FAConv(WIDTH, eps=1.0, add_self_loops=False)
    with torch.no_grad():
        ours.gates[0].bias.zero_()  # FAGCN's gate has none
        theirs.att_r.weight.copy_(ours.gates[0].weight[:, :WIDTH])
        theirs.att_l.weight.copy_(ours.gates[0].weight[:, WIDTH:])
    torch.testing.assert_close(ours(x, edges, None), theirs(x, x, index))


def test_hypergraph_is_that_of_pyg():
    torch.manual_seed(0)
    builder = HypergraphBuilder(("text", "audio", "visual"))
    batch, edges = bound(builder)
    x = torch.randn(edges.nodes, WIDTH)
    ours = Hypergraph(WIDTH, builder.relations, depth=1)
    theirs = pyg().HypergraphConv(WIDTH, WIDTH)
    with torch.no_grad():
        ours.biases[0].normal_()
        theirs.lin.weight.copy_(torch.eye(WIDTH))
        theirs.bias.copy_(ours.biases[0])
    utterance = torch.arange(edges.nodes) // 3
    modality = batch.layout.dialogue[utterance] * 3 + torch.arange(edges.nodes) % 3 + 99
    members = torch.stack([torch.arange(edges.nodes).repeat(2), torch.cat([utterance, modality])])
    torch.testing.assert_close(ours(x, edges, None), F.leaky_relu(theirs(x, members), 0.01))


def symmetric():
    torch.manual_seed(0)
    _, edges = bound(CompleteMultimodal(("text", "audio")))
    every = torch.arange(edges.nodes)
    return torch.randn(edges.nodes, WIDTH), edges, torch.stack([edges.source(every), edges.target(every)])


def test_gat_is_that_of_dgl(graph):
    x, edges, index, _ = graph
    from mer_zoo.graph.dgl_import import dgl

    ours = GAT(WIDTH, out_width=6, heads=3)
    theirs = dgl.nn.pytorch.GATConv(WIDTH, 2, 3)
    with torch.no_grad():
        ours.bias.normal_()
        theirs.fc.weight.copy_(ours.map.weight)
        theirs.attn_r[0] = ours.target_score
        theirs.attn_l[0] = ours.source_score
        theirs.bias.copy_(ours.bias)
    structure = dgl.graph((index[0], index[1]), num_nodes=edges.nodes)
    torch.testing.assert_close(ours(x, edges, None), theirs(structure, x).flatten(1))


def test_gatv2_is_that_of_dgl(graph):
    x, edges, index, _ = graph
    from mer_zoo.graph.dgl_import import dgl

    ours = GATv2(WIDTH, out_width=6, heads=3)
    theirs = dgl.nn.pytorch.GATv2Conv(WIDTH, 2, 3)
    with torch.no_grad():
        theirs.fc_src.load_state_dict(ours.source_map.state_dict())
        theirs.fc_dst.load_state_dict(ours.target_map.state_dict())
        theirs.attn[0] = ours.score
    structure = dgl.graph((index[0], index[1]), num_nodes=edges.nodes)
    torch.testing.assert_close(ours(x, edges, None), theirs(structure, x).flatten(1))


def test_rgcn_is_that_of_dgl(graph):
    x, edges, index, relation = graph
    from mer_zoo.graph.dgl_import import dgl

    ours = RGCN(WIDTH, edges.names, out_width=6, bases=2)
    theirs = dgl.nn.pytorch.RelGraphConv(WIDTH, 6, 3, "basis", 2)
    with torch.no_grad():
        theirs.linear_r.W.copy_(ours.basis)
        theirs.linear_r.coeff.copy_(ours.mixture)
        theirs.loop_weight.copy_(ours.root)
        theirs.h_bias.copy_(ours.bias)
    structure = dgl.graph((index[0], index[1]), num_nodes=edges.nodes)
    torch.testing.assert_close(ours(x, edges, None), theirs(structure, x, relation))


# special cases


def test_relational_gat_starts_as_gat_and_then_minds_relations(graph):
    x, edges, _, _ = graph
    ours, plain = RelationalGAT(WIDTH, edges.names, out_width=6, heads=2), GAT(WIDTH, out_width=6, heads=2)
    plain.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "relation_score"})
    torch.testing.assert_close(ours(x, edges, None), plain(x, edges, None))
    ours.relation_score.data[:, 1:] = -1e4  # as if only relation a existed
    _, only = bound(RandomGraph(("text",)), relations="a")
    torch.testing.assert_close(ours(x, edges, None), plain(x, only, None))


def test_differential_dot_without_subtraction_is_plain_attention():
    torch.manual_seed(0)
    _, edges = bound(SelfCrossSpeaker(("text",), window=99), lengths=(7,))
    layer = DifferentialDot(WIDTH, heads=2)
    with torch.no_grad():
        layer.damping.zero_()  # lambda = 1 - exp(third . fourth) + start
        layer.damping[2:, 0] = math.log(1 + layer.damping_start) ** 0.5
    x = torch.randn(7, WIDTH)
    query, key = (m(x).view(7, 4, 2)[:, ::2].transpose(0, 1) for m in (layer.query, layer.key))
    value = layer.value(x).view(7, 2, 4).transpose(0, 1)
    torch.testing.assert_close(layer.attend(x, edges), F.scaled_dot_product_attention(query, key, value))


@pytest.mark.parametrize("layer", [GAT, GATv2, GraphTransformer])
def test_heads_that_do_not_divide_are_refused(layer):
    with pytest.raises(MerZooError, match="out_width 100 is not divisible by 3 heads"):
        layer(WIDTH, out_width=100, heads=3)


def test_differential_dot_refuses_widths_that_do_not_fit():
    with pytest.raises(MerZooError, match="width 10 is not divisible by 8, twice the heads"):
        DifferentialDot(10, heads=4)
    with pytest.raises(MerZooError, match="3 key heads do not divide 4 heads"):
        DifferentialDot(8, heads=4, key_heads=3)


def test_published_hypergraph_normalisers_need_their_graph():
    with pytest.raises(MerZooError, match="numbers the hyperedges of `graph: hypergraph`"):
        Hypergraph(WIDTH, ("a", "b"), normalise="batch_position")


def test_dag_gru_advances_all_modalities_of_an_utterance():
    torch.manual_seed(0)
    dialogues = conversations((7, 3))
    names = ("text", "audio", "visual")
    apart, together = (SelfCrossSpeaker(nodes, window=3) for nodes in (("text",), names))
    layer = DagGRU(WIDTH, apart.relations)
    x = torch.randn(10, 3, WIDTH)
    _, edges = bound(together, Dense, dialogues=dialogues)
    got = layer(x.flatten(0, 1), edges, None).unflatten(0, (10, 3))
    _, edges = bound(apart, Dense, dialogues=dialogues)
    for slot in range(3):
        torch.testing.assert_close(got[:, slot], layer(x[:, slot], edges, None))


# published numbers


@pytest.mark.parametrize("case", ["full", "causal", "padded"])
@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize(("kind", "key_heads"), [("mha", 2), ("gqa", 1)])
def test_differential_dot_equals_published(kind, key_heads, depth, case):
    file, name = numbers("diff_attention"), f"{kind}.depth{depth}"
    layer = DifferentialDot(16, heads=2, key_heads=key_heads, depth=depth)
    published = {
        "query.weight": "q_proj.weight",
        "key.weight": "k_proj.weight",
        "value.weight": "v_proj.weight",
        "out.weight": "out_proj.weight",
        "norm": "subln.weight",
    }
    weights = {ours: file[f"{name}.weight.{theirs}"] for ours, theirs in published.items()}
    four = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
    weights["damping"] = torch.stack([file[f"{name}.weight.{vector}"] for vector in four])
    layer.load_state_dict(weights)
    lengths = file["key_padding_lengths"].tolist() if case == "padded" else [6, 6, 6]
    builder = SelfCrossSpeaker(("text",), window=6, future=0 if case == "causal" else None)
    _, edges = bound(builder, Dense, lengths=lengths)
    rows = [slice(None, n) for n in lengths]
    x = torch.cat([file["x"][i, row] for i, row in enumerate(rows)]).requires_grad_()
    upstream = torch.cat([file["upstream"][i, row] for i, row in enumerate(rows)])
    expected = torch.cat([file[f"{name}.{case}.output"][i, row] for i, row in enumerate(rows)])
    got = layer(x, edges, None)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    if case == "padded":  # the published gradient includes that of padded queries
        return
    (got * upstream).sum().backward()
    torch.testing.assert_close(x.grad.view(3, 6, 16), file[f"{name}.{case}.grad.x"], rtol=1e-4, atol=1e-5)
    for ours, theirs in published.items():
        gradient = layer.get_parameter(ours).grad
        torch.testing.assert_close(gradient, file[f"{name}.{case}.grad.{theirs}"], rtol=1e-4, atol=1e-5)
    damping = torch.stack([file[f"{name}.{case}.grad.{vector}"] for vector in four])
    torch.testing.assert_close(layer.damping.grad, damping, rtol=1e-4, atol=1e-5)


TRANSFORMER = {
    f"{ours}.{kind}": f"lin_{theirs}.{kind}"
    for ours, theirs in {"query": "query", "key": "key", "value": "value", "root": "skip"}.items()
    for kind in ("weight", "bias")
}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_cogmen_layers_equal_published(kernel):
    file = numbers("cogmen")
    builder = SpeakerWindow(("utterance",), 2, past=2, future=1)
    _, edges = bound(builder, kernel, dialogues=file.conversations({"text": "text"}))
    rgcn = RGCN(8, builder.relations, out_width=8, bases=None, normalise="mean")
    rgcn.load_state_dict(file.weights("gcn.conv1.", {"basis": "weight", "root": "root", "bias": "bias"}))
    x = rgcn(file.states("after_context_encoder"), edges, None)
    torch.testing.assert_close(x, file.states("after_rgcn"), rtol=1e-5, atol=1e-5)
    attention = GraphTransformer(8, out_width=8)
    attention.load_state_dict(file.weights("gcn.conv2.", TRANSFORMER))
    torch.testing.assert_close(attention(x, edges, None), file.states("after_transformer_conv"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_corect_layers_equal_published(kernel):
    file = numbers("corect")
    slots = ("text_encoded", "audio_encoded", "visual_encoded")
    builder = TemporalModality(("text", "audio", "visual"), past=2, future=2)  # published as 3, its end exclusive
    dialogues = file.conversations({"text": "text", "audio": "audio", "visual": "visual"})
    batch, edges = bound(builder, kernel, dialogues=dialogues)
    speaker = file["weight.speaker_embedding.weight"][batch.layout.speaker]
    x = torch.stack([file.states(slot) + speaker for slot in slots], 1).flatten(0, 1)
    rgcn = RGCN(4, builder.relations, out_width=4, bases=None, normalise="mean")
    rgcn.load_state_dict(file.weights("graph_model.gnn.conv1.", {"basis": "weight", "root": "root", "bias": "bias"}))
    x = rgcn(x, edges, None)
    torch.testing.assert_close(x, file.states("after_rgcn", 3), rtol=1e-5, atol=1e-5)
    attention = GraphTransformer(4, out_width=8, heads=2)
    attention.load_state_dict(file.weights("graph_model.gnn.conv2.", TRANSFORMER))
    torch.testing.assert_close(
        attention(x, edges, None), file.states("after_transformer_conv", 3), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_m3net_branches_equal_published(kernel):
    file = numbers("m3net")
    builder = HypergraphBuilder(("text", "audio", "visual"))
    dialogues = file.conversations({"text": "text0", "audio": "audio", "visual": "visual"})
    _, edges = bound(builder, kernel, dialogues=dialogues)
    x = file.states("after_fc1", 3)
    frequency = SignedFrequency(10, depth=4)
    for i, gate in enumerate(frequency.gates, 1):
        gate.load_state_dict(file.weights(f"graph_model.conv{i}.", {"weight": "gate.weight", "bias": "gate.bias"}))
    torch.testing.assert_close(frequency(x, edges, None), file.states("frequency_layer4", 3), rtol=1e-5, atol=1e-5)
    layer = Hypergraph(10, builder.relations, depth=3, normalise="batch_position")
    biases = {f"biases.{i}": file[f"weight.graph_model.hyperconv{i + 1}.bias"] for i in range(3)}
    names = {"edge_weight": "hyperedge_weight", "node_weight": "EW_weight"}
    layer.load_state_dict({**file.weights("graph_model.", names), **biases})
    torch.testing.assert_close(layer(x, edges, None), file.states("hypergraph_layer3", 3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_dag_gru_equals_published(kernel):
    file = numbers("dagerc")
    builder = Dag(("utterance",))
    _, edges = bound(builder, kernel, dialogues=file.conversations({"text": "text"}))
    x = file.states("after_input_layer")
    layer, weights = DagGRU(8, builder.relations, depth=2), {}
    for i in range(2):
        lead = f"levels.{i}"
        weights[f"{lead}.score.weight"] = file[f"weight.gather.{i}.linear.weight"][:, 8:]
        maps = [file[f"weight.gather.{i}.Wr{r}.weight"].t() for r in range(2)]
        weights[f"{lead}.maps"] = torch.stack(maps)
        for ours, theirs in (("context", "grus_c"), ("message", "grus_p")):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                weights[f"{lead}.{ours}.{kind}"] = file[f"weight.{theirs}.{i}.{kind}"]
    layer.load_state_dict(weights)
    for i, states in enumerate(layer(x, edges, None).chunk(2, -1), 1):
        torch.testing.assert_close(states, file.states(f"graph_layer{i}"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_gated_gcnii_equals_published(kernel):
    file = numbers("mmdfn")
    from mer_zoo.parts.edge_weight.arccos import Arccos

    builder = CompleteMultimodal(("audio", "visual", "text"))
    dialogues = file.conversations({"audio": "audio", "visual": "visual", "text": "text"})
    batch, edges = bound(builder, kernel, dialogues=dialogues)
    layer = GatedGCNII(12, hidden=8, depth=8, dropout=0.0)
    names = {f"first.{kind}": f"fcs.0.{kind}" for kind in ("weight", "bias")}
    names |= {f"maps.{i}": f"convs.{i}.weight" for i in range(8)}
    names |= {f"gate.{kind}": f"rnn.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    layer.load_state_dict(file.weights("graph_model.graph_net.", names))
    x = file.states("node_features", 3)
    got = layer(x, edges, Arccos()(x, edges, batch.layout))
    torch.testing.assert_close(got, file.states("gdf_layer8", 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_a_second_map_of_gain_0_starts_as_the_mean_over_all_neighbours(gain, monkeypatch):
    batch = tiny_batch()
    edges = next(iter(batch.views.values()))
    softmax, maps = type(edges).softmax, []
    monkeypatch.setattr(type(edges), "softmax", lambda self, scores: maps.append(softmax(self, scores)) or maps[-1])
    layer = DifferentialGAT(6, edges.names, second_gain=gain).eval()
    layer(batch.features["text"], edges, None).sum().backward()
    assert len(maps) == 2
    for first, second in (both.unbind(1) for both in maps):
        assert torch.allclose(second, softmax(edges, torch.zeros_like(second))) == (gain == 0)
        assert not torch.allclose(first, second)
    assert layer.first.source_score.grad[:, 1].abs().sum() > 0  # and it learns


def test_lambda_starts_higher_in_a_deeper_layer():
    starts = [
        -float(DifferentialGAT(6, ("a",), depth=depth).first._damping()[:, 0, 1].mean().detach()) for depth in (0, 1, 6)
    ]
    assert starts == pytest.approx([0.2, 0.36, 0.7], abs=0.1)
