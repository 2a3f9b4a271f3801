"""One attention forward and backward by every kernel; where `kernels/choice.py` has its `SEGMENT_COST` from."""

import pytest
import torch

from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.graph.complete_multimodal import CompleteMultimodal
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.band import Band
from mer_zoo.kernel.choice import cheapest
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.dgl import DGL
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GRAPHS = {
    "window": (SelfCrossSpeaker(("text",), window=10), ("text",)),
    "complete": (CompleteMultimodal(("text", "audio", "visual")), ("text", "audio", "visual")),
}


@pytest.mark.parametrize(
    "kernel", [Segment, Dense, Band, Planes, DGL, None], ids=lambda k: k.__name__ if k else "chosen"
)
@pytest.mark.parametrize("graph", GRAPHS)
def test_attention(benchmark, graph, kernel):
    if kernel is DGL and DEVICE != "cpu":
        pytest.skip("the wheels of DGL compute on CPU")
    builder, nodes = GRAPHS[graph]
    corpus = Corpus(conversations([60, 40, 50, 20]), builder, [(nodes, "*")], kernels=kernel, device=DEVICE)
    index = corpus.index([0, 1, 2, 3])
    width = 64
    count = next(iter(corpus.batch(index).views.values())).nodes
    x = torch.randn(2, count, width, device=DEVICE, requires_grad=True)

    def step():
        edges = next(iter(corpus.batch(index).views.values()))
        weights = edges.softmax(edges.source(x[..., 0]) + edges.target(x[..., 1]))
        edges.aggregate(weights, x).sum().backward()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    benchmark.extra_info["chosen"] = cheapest(next(iter(corpus._kernels.values()))[1]).__name__
