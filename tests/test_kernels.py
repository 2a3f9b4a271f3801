"""All kernels are one computation: equal forward and backward, on any graph, in any batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_zoo.batch.index import Shape
from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder
from mer_zoo.graph.bipartite_window import BipartiteWindow
from mer_zoo.graph.complete_multimodal import CompleteMultimodal
from mer_zoo.graph.lowering import ViewSpec
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.graph.speaker_window import SpeakerWindow
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment

KERNELS = [Segment, Dense, Band, Planes, DGL]
GRAPHS = {
    "window": (SelfCrossSpeaker(("text", "audio"), window=2), (("text",), "*")),
    "some relations": (SelfCrossSpeaker(("text",), window=3), (("text",), ["self_loop", "same_*"])),
    "no self-loops": (SelfCrossSpeaker(("text",), window=2), (("text",), "other_*")),
    "directed": (SpeakerWindow(("text",), 3, past=3, future=0), (("text",), "*")),
    "several node types": (CompleteMultimodal(("text", "audio")), (("text", "audio"), "*")),
}


def every_operation(edges, seed=0, dtype=torch.float32):
    """Run all operations of a kernel on the same random values; returns outputs and gradients."""
    draw = torch.Generator().manual_seed(seed)
    heads, width = 2, 4

    def values(*shape):
        return (torch.randn(*shape, generator=draw, dtype=dtype) / 2).requires_grad_()

    query, value = values(heads, edges.nodes, width), values(heads, edges.nodes, width)
    table = values(heads, edges.relations)
    scores = (
        edges.source(query[..., 0]) + 2 * edges.target(value[..., 1]) + edges.relation(table) + edges.dot(query, value)
    )
    weights = edges.softmax(scores)
    outputs = [
        edges.aggregate(weights, value),
        edges.aggregate_by_relation(edges.mask(weights[0] * scores[1]), value[0]),
        edges.sum(edges.mask(scores)),
        edges.edge_values(edges.softmax_outgoing(scores[0])),
        edges.edge_values(weights),
        edges.by_distance(weights),
    ]
    sum(output.sin().mean() for output in outputs).backward()
    return [*outputs, query.grad, value.grad, table.grad]


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k is not Segment], ids=lambda k: k.__name__)
@pytest.mark.parametrize("graph", GRAPHS)
def test_kernels_agree(graph, kernel):
    builder, view = GRAPHS[graph]
    dialogues = conversations([7, 1, 13, 5])

    def run(k):
        return every_operation(
            next(iter(Corpus(dialogues, builder, [view], kernels=k).batch([2, 0, 1]).views.values()))
        )

    for ours, reference in zip(run(kernel), run(Segment), strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    past=st.integers(0, 12),
    future=st.integers(0, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_kernels_agree_on_any_window(lengths, past, future, seed):
    builder = SpeakerWindow(("text",), 3, past=past, future=future)
    dialogues = conversations(lengths, seed=seed)
    results = []
    for kernel in (Segment, Dense, Band, Planes):
        corpus = Corpus(dialogues, builder, [(("text",), "*")], kernels=kernel)
        results.append(
            every_operation(next(iter(corpus.batch(range(len(dialogues))).views.values())), seed, torch.float64)
        )
    for other in results[1:]:
        for ours, reference in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, reference, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kernel", [Segment, Dense, Band, Planes], ids=lambda k: k.__name__)
def test_padding_rows_change_nothing(kernel):
    builder, dialogues = SelfCrossSpeaker(("text",), window=2), conversations([7, 3])
    corpus = Corpus(dialogues, builder, [(("text",), "*")], kernels=kernel)
    plain = next(iter(corpus.batch([0, 1]).views.values()))
    padded = next(iter(corpus.batch(corpus.index([0, 1, 2], Shape(utterances=16, longest=11))).views.values()))
    x = torch.randn(1, 10, 3)
    more = torch.cat([x, torch.full((1, 6, 3), 7.0)], 1)
    ours = padded.aggregate(padded.softmax(padded.source(more[..., 0])), more)
    theirs = plain.aggregate(plain.softmax(plain.source(x[..., 0])), x)
    torch.testing.assert_close(ours[:, :10], theirs)
    assert torch.isfinite(ours).all()


class Doubled(GraphBuilder):
    """Two relations between the same nodes."""

    relations = ("once", "twice")

    def edges(self, conversation):
        nodes = np.arange(len(conversation))
        return {("text", name, "text"): (nodes, nodes) for name in self.relations}


def test_several_edges_between_two_nodes_need_a_list():
    corpus = Corpus(conversations([4]), Doubled(("text",)), [(("text",), "*")])
    edges = next(iter(corpus.batch([0]).views.values()))
    assert isinstance(edges, Segment)
    assert edges.sum(edges.ones).tolist() == [2, 2, 2, 2]
    for kernel in (Dense, Band, Planes):
        with pytest.raises(MerZooError, match=f"kernel {kernel.__name__} cannot hold several edges .* Use segment"):
            Corpus(conversations([4]), Doubled(("text",)), [(("text",), "*")], kernels=kernel)


def test_a_shape_pads_up_to_it_and_never_cuts():
    builder = SelfCrossSpeaker(("text",), window=1)
    corpus = Corpus(conversations([7, 3]), builder, [(("text",), "*")], kernels=Segment)
    index = corpus.index([0, 1], Shape(3, 5, 9, {"0": 50}))
    assert index.rows.shape == (3, 9)
    assert (len(index.utterances), len(index.edges["0"]["edge"])) == (10, 50)
    assert corpus.index([0, 1], Shape(longest=2)).rows.shape == (2, 7)


def test_the_cheapest_kernel_follows_the_graph():
    def choice(builder, lengths, nodes=("text",)):
        corpus = Corpus(conversations(lengths), builder, [(nodes, "*")])
        return type(next(iter(corpus.batch([0]).views.values())))

    assert choice(SelfCrossSpeaker(("text",), window=3), [60, 50]) is Band
    assert choice(CompleteMultimodal(("text", "audio")), [20, 20], ("text", "audio")) is Dense
    assert choice(CompleteMultimodal(("text", "audio")), [80, 20], ("text", "audio")) is Planes
    assert choice(BipartiteWindow(("text", "audio")), [5, 4], ("text", "audio")) is Dense


def test_planes_refuse_edges_between_modalities_of_different_utterances():
    view = (("text", "audio"), "*")
    with pytest.raises(MerZooError, match="Use dense"):
        Corpus(conversations([5]), BipartiteWindow(("text", "audio")), [view], kernels=Planes)


def test_equal_subgraphs_of_modalities_are_stored_once():
    builder = SelfCrossSpeaker(("text", "audio"), window=2)
    batch = Corpus(conversations([5]), builder, [(("text",), "*"), (("audio",), "*")]).batch([0])
    assert len(batch.views) == 2
    assert len({id(edges) for edges in batch.views.values()}) == 1


def test_an_edge_lets_its_target_see_its_source():
    builder, names = SpeakerWindow(("text",), 3, past=0, future=1), ("text",)
    spec = ViewSpec(names, builder.relations)
    corpus = Corpus(conversations([3]), builder, [spec])
    edges = corpus.batch([0]).views[spec]
    seen = edges.aggregate(edges.ones.unsqueeze(0), torch.eye(3).unsqueeze(0))[0]
    # edges run from a centre to the utterance behind it, and to itself
    assert seen.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_a_complete_graph_of_a_very_long_dialogue_is_refused():
    dialogue = conversations([9000])[0]
    with pytest.raises(MerZooError, match="Use a windowed graph"):
        CompleteMultimodal(("text", "audio", "visual"))(dialogue)
