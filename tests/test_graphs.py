"""Graph builders: which edges there are, the published ones among them, and none from the future where promised."""

import numpy as np
import pytest
from parity_numbers import numbers

from mer_zoo import registry
from mer_zoo.checking.small_data import conversations
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.graph.bipartite_window import BipartiteWindow
from mer_zoo.graph.dag import Dag
from mer_zoo.graph.hypergraph import Hypergraph
from mer_zoo.graph.k_nearest import KNearest
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.graph.speaker_pairs import SpeakerPairs
from mer_zoo.graph.speaker_window import SpeakerWindow
from mer_zoo.graph.temporal_modality import TemporalModality
from mer_zoo.graph.temporal_speaker import TemporalSpeaker

MODALITIES = ("text", "audio", "visual")


def dialogue(speakers="ABABBA", **features):
    features = features or {m: np.random.default_rng(0).normal(size=(len(speakers), 3)) for m in MODALITIES}
    return Conversation("d", tuple(speakers), [0] * len(speakers), features)


def edge_list(builder, conversation):
    """Return {(source, target, relation, source type, target type)}, read back from the DGL graph."""
    graph = builder(conversation)
    return {
        (int(u), int(v), relation, a, b)
        for a, relation, b in graph.canonical_etypes
        for u, v in zip(*graph.edges(etype=(a, relation, b)), strict=True)
    }


def pairs(builder, conversation, relation):
    return {(u, v) for u, v, r, *_ in edge_list(builder, conversation) if r == relation}


@pytest.mark.parametrize("card", registry.cards("graph"), ids=lambda card: card.name)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_every_builder_names_what_it_builds(card, length):
    (conversation,) = conversations([length])
    builder = registry.build(card, {}, {"node_types": MODALITIES, "speakers": 3})
    edges = builder.edges(conversation)
    assert set(edges) == set(builder.edge_types)
    assert {relation for _, relation, _ in builder.edge_types} == set(builder.relations)
    assert len(set(builder.relations)) == len(builder.relations)
    for source, target in edges.values():
        assert source.dtype == target.dtype == np.int64
        assert ((source >= 0) & (source < length) & (target >= 0) & (target < length)).all()
        assert len({*zip(source.tolist(), target.tolist(), strict=True)}) == len(source)
    builder(conversation)


CAUSAL = [
    SelfCrossSpeaker(MODALITIES, window=3, future=0),
    SpeakerWindow(MODALITIES, 3, past=0, future=3),  # edges leave the window's centre, so its future is their past
    TemporalModality(MODALITIES, past=0, future=3),
    BipartiteWindow(MODALITIES, past=3, future=0),
    TemporalSpeaker(MODALITIES, 3, past=3, future=0),
    Dag(MODALITIES),
    KNearest(MODALITIES, k=2, causal=True),
]


@pytest.mark.parametrize("builder", CAUSAL, ids=lambda builder: type(builder).__name__)
def test_no_edge_comes_from_the_future(builder):
    for conversation in conversations([1, 7, 23]):
        edges = edge_list(builder, conversation)
        assert all(u <= v for u, v, *_ in edges)
        assert len(conversation) == 1 or any(u < v for u, v, *_ in edges)


@pytest.mark.parametrize("builder", CAUSAL, ids=lambda builder: type(builder).__name__)
def test_the_past_of_a_causal_graph_does_not_depend_on_what_follows(builder):
    (whole,) = conversations([11])
    begun = Conversation("d", whole.speakers[:6], whole.labels[:6], {m: x[:6] for m, x in whole.features.items()})
    assert edge_list(builder, begun) == {edge for edge in edge_list(builder, whole) if edge[1] < 6}


def test_self_cross_speaker_looks_ahead_as_far_as_back_unless_told():
    assert edge_list(SelfCrossSpeaker(("text",), window=2), dialogue()) == edge_list(
        SelfCrossSpeaker(("text",), window=2, future=2), dialogue()
    )
    shorter = edge_list(SelfCrossSpeaker(("text",), window=2, future=1), dialogue())
    assert max(u - v for u, v, *_ in shorter) == 1
    assert max(v - u for u, v, *_ in shorter) == 2


def test_dag_goes_back_to_the_speakers_last_turn():
    conversation = dialogue("ABACBB")
    assert pairs(Dag(("utterance",)), conversation, "same_speaker") == {(0, 2), (1, 4), (4, 5)}
    assert pairs(Dag(("utterance",)), conversation, "other_speaker") == {
        *((0, 1), (1, 2)),
        *((0, 3), (1, 3), (2, 3)),
        *((2, 4), (3, 4)),
    }
    twice = Dag(("utterance",), turns=2)
    assert {u for u, v in pairs(twice, conversation, "same_speaker") if v == 5} == {1, 4}


def test_dag_refuses_what_does_not_fit():
    builder = Dag(("text",))
    builder.max_edges = 10
    with pytest.raises(MerZooError, match=r"dialogue 'd': .* makes 15 edges, more than 10"):
        builder(dialogue("ABCDEF"))
    with pytest.raises(MerZooError, match="turns: want at least 1, not 0"):
        Dag(("text",), turns=0)


def test_bipartite_window_needs_two_sides():
    with pytest.raises(MerZooError, match="there is only 'utterance' here"):
        BipartiteWindow(("utterance",))


def test_hypergraph_is_the_cliques_of_its_hyperedges():
    conversation = dialogue("ABA")
    builder = Hypergraph(MODALITIES)
    edges = edge_list(builder, conversation)
    assert {(u, v) for u, v, r, *_ in edges if r == "same_modality"} == {
        (u, v) for u in range(3) for v in range(3) if u != v
    }
    assert sum(r == "same_modality" for _, _, r, *_ in edges) == 3 * 6
    assert {(u == v, a != b) for u, v, r, a, b in edges if r == "same_utterance"} == {(True, True)}
    assert sum(r == "same_utterance" for _, _, r, *_ in edges) == 6 * 3
    builder.max_edges = 10
    with pytest.raises(MerZooError, match="more than 10"):
        builder(conversation)


def test_temporal_speaker_has_every_pair_twice():
    builder = TemporalSpeaker(("utterance",), 2, past=1, future=1)
    assert pairs(builder, dialogue("ABB"), "time_past") == {(0, 1), (1, 2)}
    assert pairs(builder, dialogue("ABB"), "time_future") == {(1, 0), (2, 1)}
    assert pairs(builder, dialogue("ABB"), "speaker_1_to_1") == {(1, 1), (2, 2), (1, 2), (2, 1)}
    assert pairs(builder, dialogue("ABB"), "speaker_0_to_1") == {(0, 1)}


@pytest.mark.parametrize("kind", [SpeakerWindow, TemporalSpeaker, SpeakerPairs])
def test_further_speakers_share_the_last_ones_place(kind):
    builder = kind(MODALITIES, 2, past=2, future=2)
    assert edge_list(builder, dialogue("ABCADC")) == edge_list(builder, dialogue("ABBABB"))
    assert edge_list(builder, dialogue("ABCADC")) != edge_list(builder, dialogue("ABAABA"))


def test_speaker_pairs_do_not_ask_who_of_the_two_speaks():
    builder = SpeakerPairs(("text", "audio"), 3, past=1, future=2)
    edges = edge_list(builder, dialogue("ABCA"))
    within = {(u, v): r for u, v, r, a, b in edges if a == b == "text"}
    assert set(within) == {(u, v) for u in range(4) for v in range(4) if -1 <= u - v <= 2}
    assert within[0, 1] == within[1, 0] == within[3, 1] == "0_with_1"
    assert within[2, 3] == "0_with_2"
    assert within[0, 0] == "0_with_0"
    across = {(u, v) for u, v, r, a, b in edges if a != b}
    assert across == {(u, u) for u in range(4)}
    assert {r for _, _, r, a, b in edges if a != b} == {"same_utterance"}
    assert builder.relations == (
        "0_with_0",
        "0_with_1",
        "0_with_2",
        "1_with_1",
        "1_with_2",
        "2_with_2",
        "same_utterance",
    )


TEXT = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9], [1.0, 0.0]])
AUDIO = TEXT[[0, 1, 1, 0, 1]]


def test_k_nearest_takes_the_most_similar():
    conversation = dialogue("ABABA", text=TEXT, audio=AUDIO)
    edges = edge_list(KNearest(("text", "audio"), k=1), conversation)
    near = {node: {v: u for u, v, r, a, _ in edges if r != "self_loop" and a == node} for node in ("text", "audio")}
    assert near["text"] == {0: 4, 1: 3, 2: 0, 3: 1, 4: 0}  # a tie of 0 and 4 goes to the earlier
    assert near["audio"] == {0: 3, 1: 2, 2: 1, 3: 0, 4: 1}
    assert {(u > v) for u, v, r, *_ in edges if r == "nearest_future"} == {True}
    assert {(u < v) for u, v, r, *_ in edges if r == "nearest_past"} == {True}


def test_k_nearest_by_one_modality_or_by_all():
    conversation = dialogue("ABABA", text=TEXT, audio=AUDIO)
    chosen = KNearest(("text", "audio"), k=1, modality="audio").edges(conversation)
    assert chosen["text", "nearest_past", "text"][0].tolist() == chosen["audio", "nearest_past", "audio"][0].tolist()
    fused = edge_list(KNearest(("utterance",), k=1), conversation)
    assert (0, 4, "nearest_past", "utterance", "utterance") not in fused  # alike in text alone
    with pytest.raises(MerZooError, match=r"has no modality 'texts'. Did you mean 'text'\? Choose one of text, audio"):
        KNearest(("text",), modality="texts").edges(conversation)


def test_k_nearest_compares_block_by_block(monkeypatch):
    (conversation,) = conversations([23])
    whole = edge_list(KNearest(MODALITIES, k=3), conversation)
    monkeypatch.setattr("mer_zoo.graph.k_nearest.BLOCK", 5)
    assert edge_list(KNearest(MODALITIES, k=3), conversation) == whole
    assert len(whole) == 3 * 23 * 4


def test_k_nearest_reads_absent_features_as_zeros():
    text = TEXT.copy()
    text[4] = [1.0, 0.0]
    conversation = Conversation("d", tuple("ABABA"), [0] * 5, {"text": text}, {"text": np.array([1, 1, 1, 1, 0], bool)})
    nearest = dict(
        zip(*reversed(KNearest(("text",), k=1).edges(conversation)["text", "nearest_past", "text"]), strict=True)
    )
    assert nearest[4] == 0  # all cosines are 0: the first
    assert nearest[2] == 0


# published graphs


def ours(builder, dialogues, order):
    """Edges of all dialogues, numbered by `order(slot, start, place, length, total)` → {(u, v): relation id}."""
    total, start, found = sum(map(len, dialogues)), 0, {}
    slot = {node: i for i, node in enumerate(builder.node_types)}
    number = {name: i for i, name in enumerate(builder.relations)}
    for conversation in dialogues:
        length = len(conversation)
        for u, v, relation, a, b in edge_list(builder, conversation):
            ends = (order(slot[a], start, u, length, total), order(slot[b], start, v, length, total))
            found[ends] = number[relation]
        start += length
    return found


def slot_major(slot, start, place, length, total):
    return slot * total + start + place


def by_dialogue(slot, start, place, length, total):
    return 3 * start + slot * length + place


def published_relations(file):
    index, relation = file.arrays["graph.edge_index"], file.arrays["graph.edge_type"]
    return {(int(u), int(v)): int(r) for (u, v), r in zip(index.T, relation, strict=True)}


def test_temporal_modality_is_the_graph_of_corect():
    file = numbers("corect")
    dialogues = file.conversations({m: m for m in MODALITIES})
    assert ours(TemporalModality(MODALITIES, past=2, future=2), dialogues, slot_major) == published_relations(file)


def test_speaker_window_is_the_graph_of_cogmen():
    file = numbers("cogmen")
    dialogues = file.conversations({"text": "text"})
    assert ours(SpeakerWindow(("utterance",), 2, past=2, future=1), dialogues, slot_major) == published_relations(file)


def test_bipartite_window_is_the_graph_of_graphsmile():
    file = numbers("graphsmile")
    dialogues = file.conversations({"text": "text0", "visual": "visual"})
    built = ours(BipartiteWindow(("text", "visual"), past=2, future=1), dialogues, slot_major)
    target, source = file.arrays["graph.edge_index"]  # rows of the adjacency gather from columns
    assert {*built} == {(int(u), int(v)) for u, v in zip(source, target, strict=True)}


def test_dag_is_the_graph_of_dag_erc():
    file = numbers("dagerc")
    for i, conversation in enumerate(file.conversations({"text": "text"})):
        target, source = np.nonzero(file.arrays[f"dialogue{i}.adjacency"])
        same = file.arrays[f"dialogue{i}.same_speaker"][target, source]
        expected = {(int(u), int(v)): 1 - int(s) for u, v, s in zip(source, target, same, strict=True)}
        assert ours(Dag(("utterance",)), [conversation], slot_major) == expected


def test_hypergraph_is_the_frequency_graph_of_m3net():
    file = numbers("m3net")
    dialogues = file.conversations({"text": "text0", "audio": "audio", "visual": "visual"})
    expected = {(int(u), int(v)) for u, v in file.arrays["graph.frequency_edge_index"].T}
    assert {*ours(Hypergraph(MODALITIES), dialogues, by_dialogue)} == expected
