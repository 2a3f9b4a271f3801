"""Drawings made from the thing itself: a builder's relations on six utterances, a model's stages."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from docs.generator.pages import escape
from mer_zoo import registry
from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges
from mer_zoo.model.plan import Plan

SPEAKERS = ("A", "B", "B", "A", "B", "A")
MODALITIES = ("text", "audio", "visual")
WINDOW = 2
STEP, MARGIN, ROW = 54, 34, 62


def six_utterances() -> Conversation:
    """Return the dialogue that all drawings show: six utterances of two speakers, three modalities."""
    draw = np.random.default_rng(3)
    features = {m: draw.normal(size=(6, 4)).astype(np.float32) for m in MODALITIES}
    return Conversation("six", SPEAKERS, [0] * 6, features)


def relations(card: registry.Card) -> tuple[str, str]:
    """Return (caption, HTML): one small drawing per relation of a graph builder."""
    windows = {
        s: WINDOW for s in registry.settings("graph", registry.load(card)) if s in ("window", "past", "future", "k")
    }
    builder = registry.build(card, windows, {"node_types": MODALITIES, "speakers": 2})
    edges = builder.edges(six_utterances())
    figures = []
    for relation in builder.relations:
        chosen = {etype: pairs for etype, pairs in edges.items() if etype[1] == relation and len(pairs[0])}
        if chosen:
            figures.append(_figure(relation, *_within_one(chosen)))
    made = ", ".join(f"`{name}: {value}`" for name, value in windows.items())
    caption = "Six utterances, numbered in order; colours tell the two speakers apart. An arrow u→v lets v see u."
    caption += " Arcs above come from the past, arcs below from the future."
    return caption + (f" Drawn with {made}." if made else ""), f'<div class="relations">{"".join(figures)}</div>'


def _within_one(edges: Edges) -> tuple[Edges, str]:
    """If a relation is the same within every modality, one of them stands for all."""
    inside = [pairs for (a, _, b), pairs in edges.items() if a == b]
    if len({(a, b) for a, _, b in edges} & {(m, m) for m in MODALITIES}) == 0 and _is_to_own(edges):
        first = next(iter(edges))
        return {first: edges[first]}, "for every modality"
    same = all(np.array_equal(np.stack(inside[0]), np.stack(other)) for other in inside[1:]) if inside else False
    if len(inside) == len(edges) == len(MODALITIES) and same:
        first = next(iter(edges))
        return {first: edges[first]}, "within every modality"
    return edges, ""


def _is_to_own(edges: Edges) -> bool:
    """Whether a relation joins every modality alike to nodes of the builder's own."""
    ends = [frozenset(key[::2]) - {*MODALITIES} for key in edges]
    pairs = list(edges.values())
    same = all(np.array_equal(np.stack(pairs[0]), np.stack(other)) for other in pairs[1:])
    return same and len(edges) == len(MODALITIES) and len(set(ends)) == 1 and len(ends[0]) == 1


def _figure(relation: str, edges: Edges, note: str) -> str:
    ends = list(dict.fromkeys(node for a, _, b in edges for node in (a, b)))
    rows = [*(m for m in MODALITIES if m in ends), *(node for node in ends if node not in MODALITIES)]
    counts = {
        own: 1
        + max(int(x.max()) for key, pair in edges.items() for n, x in zip(key[::2], pair, strict=True) if n == own)
        for own in rows
        if own not in MODALITIES
    }
    mark = "head-" + relation.replace(" ", "-").replace(">", "-")
    steps = [int(b - a) for (x, _, z), (u, v) in edges.items() if x == z for a, b in zip(u, v, strict=True)]
    above = max([22 * (0 in steps), *(10 + 5 * step for step in steps if step > 0)], default=0)
    below = max((10 - 5 * step for step in steps if step < 0), default=0)
    gap = above + below + 30 if len(rows) == 1 or steps else ROW
    y = {m: 14 + above + i * gap for i, m in enumerate(rows)}
    height = max(y.values()) + 14 + below
    left = MARGIN + (40 if len(rows) > 1 else 0)
    step = {node: 5 * STEP / max(1, counts.get(node, 6) - 1) for node in rows}
    shapes = []
    for (source, _, target), (us, vs) in edges.items():
        for u, v in zip(us.tolist(), vs.tolist(), strict=True):
            start, end = (left + u * step[source], y[source]), (left + v * step[target], y[target])
            shapes.append(_arc(start, end, mark) if source == target else _line(start, end, mark))
    nodes = [
        f'<circle class="speaker-{s}" cx="{left + i * STEP}" cy="{y[m]}" r="10"/>'
        f'<text x="{left + i * STEP}" y="{y[m] + 4}">{i + 1}</text>'
        for m in rows
        if m in MODALITIES
        for i, s in enumerate(SPEAKERS)
    ]
    nodes += [
        f'<circle class="own" cx="{left + i * step[own]:g}" cy="{y[own]}" r="10"/>'
        f'<text x="{left + i * step[own]:g}" y="{y[own] + 4}">{i + 1}</text>'
        for own, count in counts.items()
        for i in range(count)
    ]
    names = [f'<text class="modality" x="4" y="{y[m] + 4}">{m}</text>' for m in rows] if len(rows) > 1 else []
    width = left + 5 * STEP + MARGIN
    return (
        f"<figure><figcaption><code>{escape(relation)}</code>{f' {note}' if note else ''}</figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="edges of {escape(relation)}">'
        f'<defs><marker id="{mark}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" '
        f'orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{''.join(shapes)}{''.join(nodes)}{''.join(names)}</svg></figure>"
    )


def _arc(start: tuple[float, float], end: tuple[float, float], mark: str) -> str:
    (x1, y1), (x2, y2) = start, end
    if x1 == x2:  # a loop on the node itself
        curve = f"M{x1 - 5} {y1 - 9}C{x1 - 14} {y1 - 30} {x1 + 14} {y1 - 30} {x1 + 5} {y1 - 10}"
        return f'<path d="{curve}" marker-end="url(#{mark})"/>'
    side = -1 if x2 > x1 else 1
    bend = 4 + 9 * abs(x2 - x1) / STEP
    inset = 5 if x2 > x1 else -5
    return (
        f'<path d="M{x1 + inset} {y1 + side * 9}Q{(x1 + x2) / 2} {y1 + side * (14 + bend)} '
        f'{x2 - inset} {y2 + side * 10}" marker-end="url(#{mark})"/>'
    )


def _line(start: tuple[float, float], end: tuple[float, float], mark: str) -> str:
    (x1, y1), (x2, y2) = start, end
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    dx, dy = (x2 - x1) / length * 11, (y2 - y1) / length * 11
    return f'<path d="M{x1 + dx:.1f} {y1 + dy:.1f}L{x2 - dx:.1f} {y2 - dy:.1f}" marker-end="url(#{mark})"/>'


def stages(plan: Plan, model: Any, given: Mapping[str, Any], up: str) -> str:
    """Return a model's stages as a grid: a column per modality, a row per stage.

    Args:
        plan: the plan of the model.
        model: the assembled model.
        given: the recipe as written, whose settings are shown.
        up: path from the page to docs/.
    """
    columns = list(plan.modalities)
    numbers = itertools.count(1)

    def row(name: str, cells: Sequence[tuple[int, int, str]], kind: str) -> str:
        return _row(next(numbers), name, cells, len(columns), kind)

    rows = [row("features", [(i, 1, f"<b>{m}</b> {w}") for i, (m, w) in enumerate(plan.modalities.items())], "data")]
    if plan.graph:
        rows.append(row("graph", [(0, len(columns), _part("graph", given["graph"], up))], "aside"))
    fused = False
    for name, stage in model.stages.items():
        if name == model.first_joint and plan.balancing.name != "none":
            box = _part("balancing", given["balancing"], up) + " <small>while training</small>"
            rows.append(row("balancing", [(0, len(columns), box)], "aside"))
        entry = given["model"].get(name) or given["model"][name.rpartition("_")[0]]  # a repeated stage is written once
        if stage.card is None:
            verbs = {"skip": "the states of {} in front", "add": "plus the states of {}", "start": "go back to {}"}
            label = verbs.get(stage.kind, f"padding {stage.choice.padding}").format(
                ", ".join(f"<b>{escape(s)}</b>" for s in stage.sources)
            )
            cells = [(i, 1, label) for i in range(len(columns))] if not fused else [(0, len(columns), label)]
        elif any("<" in node for group in stage.groups.values() for node in (*group, *stage.outputs.values())):
            label = f"{_part(stage.kind, entry[stage.kind], up)} <small>{escape(_ways(stage))}</small>"
            cells = [(0, len(columns), label)]
        else:
            fused = fused or (stage.kind == "fusion" and stage.choice.per is None)
            cells = []
            for key, group in stage.groups.items():
                text = _part(stage.kind, entry[stage.kind], up)
                shown = [p for p in [entry.get("relations")] if p]
                if shown:
                    text += (
                        f" <small>on {escape(shown[0] if isinstance(shown[0], str) else ', '.join(shown[0]))}</small>"
                    )
                width = getattr(stage.parts[key], "out_width", None)
                text += f" <small>→ {width}</small>" if width else ""
                places = [columns.index(node) for node in group if node in columns]
                cell = (min(places), len(places), text) if places else (0, len(columns), text)
                cells += [] if cell in cells else [cell]
        rows.append(row(name, cells, stage.kind))
    rows.append(row("loss", [(0, len(columns), _part("loss", given["loss"], up))], "aside"))
    return f'<div class="stages" style="--columns: {len(columns)}">{"".join(rows)}</div>'


def _ways(stage: Any) -> str:
    """Which pairs of modalities a stage runs on, or which targets it gathers."""
    if stage.outputs:
        return f"→ {', '.join(stage.outputs.values())}"
    return f"on {', '.join(' + '.join(group) for group in stage.groups.values())}"


def _row(number: int, name: str, cells: Sequence[tuple[int, int, str]], columns: int, kind: str) -> str:
    used = {i for start, span, _ in cells for i in range(start, start + span)}
    places = [(start, span, f"box {kind}", text) for start, span, text in cells]
    places += [(i, 1, "pass", "") for i in range(columns) if i not in used]
    boxes = [
        f'<div class="{kinds}" style="grid-area: {number} / {start + 2} / auto / span {span}">{text}</div>'
        for start, span, kinds, text in places
    ]
    return f'<div class="name" style="grid-row: {number}">{escape(name)}</div>{"".join(boxes)}'


def _part(kind: str, given: Any, up: str) -> str:
    """A part's name as a link, and the settings the recipe gives it."""
    settings = {} if isinstance(given, str) else {k: v for k, v in given.items() if k != "name"}
    name = given if isinstance(given, str) else given["name"]
    text = f'<a href="{up}catalogue/{kind}/{name}.html">{escape(name).replace("_", "_<wbr>")}</a>'
    shown = [f"{k} {_short(v)}" for k, v in settings.items()]
    return text + (f" <small>{escape(', '.join(shown)).replace('_', '_<wbr>')}</small>" if shown else "")


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"[{len(value)} values]"
    return f"{value:g}" if isinstance(value, float) else str(value)
