"""The layers of our models in the plain dense form in which such code is usually published, written from the specs.

Every dialogue is padded to the longest, every pair of utterances has a cell `[B, L, L, ...]`, heads and dialogues are
Python loops. They compute what our layers compute (`tests/test_yardstick.py`) and are used for one thing: ratios of
times measured in the same run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yardstick_walks import dag_gru, dialogue_rnn

from mer_zoo.batch.output import Output, States
from mer_zoo.model.model import Model
from mer_zoo.model.stages import Flow
from mer_zoo.parts.edge_weight.arccos import Arccos
from mer_zoo.parts.edge_weight.bilinear import Bilinear
from mer_zoo.parts.encoder.bilstm import BiLSTM
from mer_zoo.parts.encoder.dialogue_rnn import DialogueRNN
from mer_zoo.parts.encoder.transformer import Transformer, positions
from mer_zoo.parts.layer.dag_gru import DagGRU
from mer_zoo.parts.layer.differential_gat import DifferentialGAT
from mer_zoo.parts.layer.gcnii import GCNII
from mer_zoo.parts.layer.graph_conv import GraphConv
from mer_zoo.parts.layer.rgcn import RGCN
from mer_zoo.training.task import Task


def pad(x: Tensor, lengths: list[int]) -> Tensor:
    """`[N, d]` → `[B, L, d]`."""
    return nn.utils.rnn.pad_sequence(list(x.split(lengths)), batch_first=True)


def unpad(x: Tensor, lengths: list[int]) -> Tensor:
    """`[B, L, d]` → `[N, d]`."""
    return torch.cat([rows[:length] for rows, length in zip(x, lengths, strict=True)])


def adjacency(speakers: list[list[int]], window: int, same: bool) -> Tensor:
    """Relation ids `[B, L, L]` of AMB-DSGDN by Python loops over all pairs.

    0 no edge, 1 self, 2 same speaker's past, 3 same speaker's future, 4 another's future, 5 another's past.
    """
    longest = max(len(dialogue) for dialogue in speakers)
    block = torch.zeros(len(speakers), longest, longest, dtype=torch.long)
    for b, dialogue in enumerate(speakers):
        for i, speaker in enumerate(dialogue):
            for j in range(max(0, i - window), min(len(dialogue), i + window + 1)):
                if i == j:
                    block[b, i, j] = 1
                elif (dialogue[j] == speaker) == same:
                    block[b, i, j] = (2 if j < i else 3) if same else (5 if j < i else 4)
    return block


def differential_gat(part: DifferentialGAT, x: Tensor, relation: Tensor) -> Tensor:
    """`[B, L, d]`, `[B, L, L]` → `[B, L, d]`, head after head, with an embedding for every pair."""
    h = F.dropout(x, part.drop.p, part.training)
    heads = [_attention(part.first, h, relation, head) for head in range(part.first.heads)]
    h = F.dropout(torch.cat(heads, -1), part.drop.p, part.training)
    return part.norm(x + part.map(F.gelu(_attention(part.second, h, relation, 0))))


def _attention(part: nn.Module, x: Tensor, relation: Tensor, head: int) -> Tensor:
    width = part.out_width
    h = x @ part.weight[:, head * width : (head + 1) * width]
    embedded = part.relation_embedding[head][relation]  # [B, L, L, embedding]
    maps = []
    for sign, half in enumerate(h.chunk(2, -1)):
        left = (half * part.target_score[head, sign]).sum(-1)
        right = (half * part.source_score[head, sign]).sum(-1)
        scores = left.unsqueeze(2) + right.unsqueeze(1) + (embedded * part.relation_score[head, sign]).sum(-1)
        scores = F.leaky_relu(scores, 0.2)
        maps.append(torch.where(relation > 0, scores, torch.full_like(scores, -9e15)).softmax(-1))
    one, two, three, four = part.damping[head]
    damping = (one * two).sum().exp() - (three * four).sum().exp() + part.damping_start
    attention = F.dropout(maps[0] - damping * maps[1], part.drop.p, part.training)
    normed = F.layer_norm(attention @ h, (width,), part.norm_weight[head], part.norm_bias[head])
    return F.gelu(normed * (1 - part.damping_start))


def transformer(part: Transformer, x: Tensor, lengths: list[int]) -> Tensor:
    """`[B, L, d]` → `[B, L, d]`, one layer, everything on padded rows."""
    (layer,) = part.layers
    shown = torch.arange(x.shape[1]) < torch.tensor(lengths).unsqueeze(1)
    x = F.dropout(x + positions(x.shape[1], x.shape[2], x), part.drop.p, part.training)
    batch, size, _ = x.shape
    q, k, v = (m(x).view(batch, size, layer.heads, -1).transpose(1, 2) for m in (layer.query, layer.key, layer.value))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~shown[:, None, None, :].to(x.device), -1e10).softmax(-1)
    attended = F.dropout(weights, layer.drop.p, part.training) @ v
    attended = layer.out(attended.transpose(1, 2).reshape(batch, size, -1))
    h = x + F.dropout(attended, layer.drop.p, part.training)
    inner = F.dropout(F.gelu(layer.widen(layer.feed_norm(h)), approximate="tanh"), layer.drop.p, part.training)
    return h + F.dropout(layer.narrow(inner), layer.drop.p, part.training)


def arccos_adjacency(states: list[Tensor], lengths: list[int]) -> Tensor:
    """MMGCN's normalised graph over all nodes of the batch at once: `[M * N, M * N]`, filled dialogue by dialogue."""
    count, total = len(states), sum(lengths)
    weights = states[0].new_zeros(count * total, count * total)
    start = 0
    for length in lengths:
        rows = [x[start : start + length] for x in states]
        for a in range(count):
            for b in range(count):
                i, j = a * total + start, b * total + start
                if a == b:
                    weights[i : i + length, j : j + length] = _similarity(rows[a].unsqueeze(1), rows[a].unsqueeze(0))
                else:
                    place = torch.arange(length)
                    weights[i + place, j + place] = _similarity(rows[a], rows[b])
        start += length
    scale = torch.diag(weights.sum(1).rsqrt())
    return scale @ weights @ scale


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    return 1 - (0.99999 * F.cosine_similarity(x, y, dim=-1)).arccos() / math.pi


def gcnii(part: GCNII, x: Tensor, normalised: Tensor) -> Tensor:
    """`[M * N, d]` → `[M * N, hidden]`: one product with the whole adjacency per level."""
    h = start = part.first(x).relu()
    for theta, matrix in zip(part.theta.flatten().tolist(), part.maps, strict=True):
        z = normalised @ F.dropout(h, part.drop.p, part.training)
        mapped = torch.cat([z, start], 1) @ matrix
        h = (theta * mapped + (1 - theta) * ((1 - part.alpha) * z + part.alpha * start)).relu()
    return F.dropout(h, part.drop.p, part.training)


def speaker_edges(speakers: list[list[int]], past: int, future: int, cast: int) -> tuple[Tensor, Tensor]:
    """DialogueGCN's edges (source, target) and relation names' ids, by Python loops over dialogues and pairs."""
    ends, kinds, start = [], [], 0
    for dialogue in speakers:
        for i in range(len(dialogue)):
            for j in range(max(0, i - past), min(len(dialogue), i + future + 1)):
                ends.append((start + i, start + j))
                kinds.append(2 * (dialogue[i] * cast + dialogue[j]) + (0 if i < j else 1))
        start += len(dialogue)
    return torch.tensor(ends).t(), torch.tensor(kinds)


def bilinear_weights(weight: Tensor, x: Tensor, lengths: list[int], past: int, future: int) -> Tensor:
    """One softmax per window centre, in a Python loop over all utterances; a flat list in the order of the edges."""
    found, start = [], 0
    for length in lengths:
        rows = x[start : start + length]
        for i in range(length):
            window = rows[max(0, i - past) : min(length, i + future + 1)]
            found.append((rows[i] @ weight @ window.t()).softmax(0))
        start += length
    return torch.cat(found)


def rgcn(part: RGCN, x: Tensor, ends: Tensor, kinds: Tensor, weights: Tensor) -> Tensor:
    """`[N, d]` → `[N, out]`: one gathered matrix per edge."""
    matrices = part.basis if part.mixture is None else torch.einsum("rb,bio->rio", part.mixture, part.basis)
    out = x @ part.root + part.bias
    for relation in kinds.unique():
        chosen = kinds == relation
        messages = (x[ends[0, chosen]] @ matrices[relation]) * weights[chosen].unsqueeze(1)
        out = out.index_add(0, ends[1, chosen], messages)
    return out


def bilstm(part: BiLSTM, x: Tensor, lengths: list[int]) -> Tensor:
    """`[N, d]` → `[N, 2 hidden]`: every dialogue by itself, both directions."""
    results = []
    for rows in x.split(lengths):
        h = rows.unsqueeze(0)
        for level, (ahead, back) in enumerate(zip(part.forwards, part.backwards, strict=True)):
            if level:
                h = F.dropout(h, part.drop.p, part.training)
            h = torch.cat([ahead(h)[0], back(h.flip(1))[0].flip(1)], -1)
        results.append(h[0])
    return torch.cat(results)


def graph_conv(part: GraphConv, x: Tensor, ends: Tensor) -> Tensor:
    """`[N, d]` → `[N, out]`."""
    return part.neighbours(torch.zeros_like(x).index_add(0, ends[1], x[ends[0]])) + part.root(x)


class Plain:
    """A model of ours computed the plain way: the same weights, every batch's graph built anew by Python loops.

    Args:
        model: AMB-DSGDN, MMGCN, DialogueGCN (in the mianzhang form), DialogueRNN or DAG-ERC.
        task: where it comes from.
    """

    def __init__(self, model: Model, task: Task) -> None:
        self.model, self.task = model, task
        dialogues = task.dataset.select(task.split.train)
        self.speakers = [dialogue.speaker_index.tolist() for dialogue in dialogues]

    def __call__(self, dialogues: Sequence[int]) -> tuple[Output, Tensor]:
        """Run the model on training dialogues; returns its output and the labels."""
        batch = self.task.train.batch(dialogues)
        speakers = [self.speakers[i] for i in dialogues]
        flow = Flow(batch, {m: batch.features[m] for m in self.model.modalities}, batch.layout)
        edges: dict[str, Any] = {}
        for stage in self.model.stages.values():
            part = next(iter(stage.parts.values()), None)
            plain = {
                Transformer,
                BiLSTM,
                DialogueRNN,
                DifferentialGAT,
                DagGRU,
                GCNII,
                RGCN,
                GraphConv,
                Arccos,
                Bilinear,
            }
            if type(part) in plain:
                states = self._stage(stage, flow, speakers, edges)
                flow = replace(flow, states=states, saved={**flow.saved, stage.name: (states, flow.layout)})
            else:
                flow = stage(flow)
        return Output(flow.states["utterance"], flow.modality_logits, {}), batch.labels

    def _stage(self, stage: Any, flow: Flow, speakers: list[list[int]], edges: dict[str, Any]) -> States:
        states, lengths = flow.states, flow.layout.lengths.tolist()  # where padding is shown, all are the longest
        builder, found = self.model.builder, dict(states)
        for key, part in stage.parts.items():
            group = stage.groups[key]
            for node in group:
                x = states[node]
                if isinstance(part, Transformer):
                    found[node] = unpad(transformer(part, pad(x, lengths), lengths), lengths)
                elif isinstance(part, BiLSTM):
                    found[node] = bilstm(part, x, lengths)
                elif isinstance(part, DialogueRNN):
                    found[node] = dialogue_rnn(part, x, speakers)
                elif isinstance(part, DagGRU):
                    found[node] = dag_gru(part, x, speakers, builder.turns)
                elif isinstance(part, DifferentialGAT):
                    same = any(name.startswith("same") for name in stage.views[group].relations)
                    relation = adjacency(speakers, builder.window, same).to(x.device)
                    found[node] = unpad(differential_gat(part, pad(x, lengths), relation), lengths)
                elif isinstance(part, Bilinear):
                    ends, kinds = speaker_edges(speakers, builder.past, builder.future, builder.speakers)
                    edges["ends"], edges["kinds"] = ends.to(x.device), kinds.to(x.device)
                    edges["weights"] = bilinear_weights(part.weight, x, lengths, builder.past, builder.future)
                elif isinstance(part, RGCN):
                    found[node] = rgcn(part, x, edges["ends"], edges["kinds"], edges["weights"])
                elif isinstance(part, GraphConv):
                    found[node] = graph_conv(part, x, edges["ends"])
            if isinstance(part, Arccos):
                edges["normalised"] = arccos_adjacency([states[node] for node in group], lengths)
            elif isinstance(part, GCNII):
                every = gcnii(part, torch.cat([states[node] for node in group]), edges["normalised"])
                found.update(zip(group, every.chunk(len(group)), strict=True))
        return found
