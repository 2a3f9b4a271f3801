"""A page for every recipe: stages, scores published and measured (kept apart), notes, how to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from docs.generator import drawings, papers
from docs.generator.pages import Pages, raw, recipe_anchor, table, toctree
from mer_zoo.data.loading import load
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.status import status
from mer_zoo.registry import resources
from mer_zoo.registry.references import references
from mer_zoo.results.result import Result, read_results

PUBLISHED_DATA = {"iemocap": (2, 6), "meld": (9, 7)}
"""Speakers and classes of the datasets that recipes are published for."""

PROTOCOLS = {
    "test": "epoch chosen on **test**",
    "validation": "epoch chosen on validation",
    "unknown": "choice of epoch not stated",
}


def measured() -> list[Result]:
    """Return the committed results, if there are any."""
    folder = resources.folder("baselines") / "results"
    return read_results(folder) if folder.is_dir() else []


def papers_used() -> dict[str, list[str]]:
    """Return paper key → links to the recipes that cite it."""
    found: dict[str, list[str]] = {}
    for name in recipe.names():
        key = recipe.read(name).recipe.paper
        if key is not None:
            found.setdefault(key, []).append(f"[{name}](#recipe-{recipe_anchor(name)})")
    return found


def faults() -> list[str]:
    """Return what keeps a recipe from having a complete page."""
    keys = {name: recipe.read(name).recipe.paper for name in recipe.names()}
    return [
        f"recipe {n}: paper '{k}' is not in references.bib." for n, k in keys.items() if k and k not in references()
    ]


def pages() -> Pages:
    """Return the page of every recipe and of all of them."""
    results = measured()
    made: Pages = {f"models/{recipe_anchor(name)}.md": _page(name, results) for name in recipe.names()}
    rows = []
    for name in recipe.names():
        read = recipe.read(name).recipe
        needs = (
            ", ".join(f"{m} {w}" for m, w in read.modalities.items()) if isinstance(read.modalities, dict) else "any"
        )
        link = f"[{name}](#recipe-{recipe_anchor(name)})"
        rows.append((link, read.title, papers.link(read.paper), needs, status(name)))
    made["models/index.md"] = "\n\n".join(
        [
            "# Models",
            "A model is a recipe: stages of [parts](../catalogue/index.md) in the order the data meets them. A recipe "
            "named after a dataset is the published model, number for number; the one without is sized for small data.",
            "Which parts the models share: [](family.md). How they do on the same data: [](measured.md).",
            table(["recipe", "title", "paper", "features", "status"], rows),
            toctree(["family", "measured", *(recipe_anchor(name) for name in recipe.names())]),
        ]
    )
    return made


def _page(name: str, results: Sequence[Result]) -> str:
    file = recipe.read(name)
    read = file.recipe
    synthetic = load("synthetic").widths
    widths = read.modalities if isinstance(read.modalities, dict) else synthetic
    plan = filling.fill(file, widths)
    known = next((d for d in PUBLISHED_DATA if name.endswith(d) or any(p.dataset == d for p in read.published)), "")
    parts = [f"(recipe-{recipe_anchor(name)})=\n# {name}", f"{read.title}."]
    if read.paper:
        parts.append(f"Paper: {papers.link(read.paper)}.")
    parts.append(f"Status: {status(name)}.")
    if read.learner is not None:
        learner = read.learner.name
        parts.append(f"Fitted without gradient descent by the learner [{learner}](#part-learner-{learner}).")
    else:
        speakers, classes = PUBLISHED_DATA.get(known, (2, 6))
        model = assemble(plan, Facts(widths, speakers, classes))
        parts += ["## Stages", raw(drawings.stages(plan, model, _given(read), "../"))]
        count = sum(p.numel() for p in model.parameters())
        data = {"iemocap": "IEMOCAP", "meld": "MELD"}.get(known, "the synthetic dialogues")
        parts.append(f"{count:,} parameters for {data} ({classes} classes, up to {speakers} speakers).")
    parts += ["## Published scores", _published(read.published)]
    parts += ["## Measured here", _measured([r for r in results if _is(r, file)])]
    if read.notes:
        parts += ["## Paper and code", "\n".join(f"- {note}" for note in read.notes)]
    parts += ["## Run it", _run(name, read)]
    return "\n\n".join(parts)


def _given(read: recipe.Recipe) -> dict[str, Any]:
    """The recipe as written, parts with their settings."""
    dumped = read.model_dump(mode="json", exclude_none=True)
    dumped["model"] = {name: stage.model_dump(mode="json", exclude_none=True) for name, stage in read.model.items()}
    return dumped


def _published(scores: Sequence[recipe.Published]) -> str:
    if not scores:
        return "None: this variant is not from a paper."
    rows = [
        (s.dataset, s.metric.replace("_", " "), f"{s.value:.2f}", PROTOCOLS[s.selected_on], s.seeds or "?", s.where)
        for s in scores
    ]
    return table(["data", "metric, %", "value", "protocol", "seeds", "where"], rows) + (
        "\n\nScores chosen on test are too high and do not compare with honest ones; see [](../understand/protocol.md)."
        if any(s.selected_on == "test" for s in scores)
        else ""
    )


def _is(result: Result, file: recipe.RecipeFile) -> bool:
    """Whether a result is of this recipe: the same stages and graph."""
    try:
        filled = filling.fill(file, result.dataset.modalities).plain()
    except Exception:
        return False
    keys = ("graph", "model", "balancing", "loss", "modalities", "learner", "normalise")
    return all(result.recipe.get(key) == filled.get(key) for key in keys)


def _measured(results: Sequence[Result]) -> str:
    if not results:
        return "See [](measured.md) for models in their forms for any data; the command below makes a result."
    rows = []
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.dataset.name, result.protocol), []).append(result)
    for (data, protocol), members in sorted(groups.items()):
        warned = "see the warnings of `mer-zoo validate`" if members[0].dataset.warnings else ""
        scores = {"validation": [r.metrics.test for r in members]}
        if protocol == "test-oracle":
            scores["test"] = [r.oracle_metrics for r in members if r.oracle_metrics]
        for chosen, found in scores.items():
            f1 = [100 * one.weighted_f1 for one in found]
            accuracy = [100 * one.accuracy for one in found]
            spread = f" ± {np.std(f1, ddof=1):.2f}" if len(f1) > 1 else ""
            if found:
                means = f"{np.mean(f1):.2f}{spread}", f"{np.mean(accuracy):.2f}"
                rows.append((data, *means, len(found), PROTOCOLS[chosen], warned))
    return table(["data", "weighted F1, %", "accuracy, %", "runs", "protocol", ""], rows)


def _run(name: str, read: recipe.Recipe) -> str:
    layouts = {1024: "sdt", 600: "mmgcn", 100: "mmgcn"}
    if not isinstance(read.modalities, dict):
        return f"```console\n$ mer-zoo train {name}\n$ mer-zoo train {name} --data FOLDER\n```"
    layout = f"{layouts.get(read.modalities.get('text', 0), 'sdt')}-{'meld' if name.endswith('meld') else 'iemocap'}"
    return (
        f"With the feature file that the paper used (not ours to share):\n\n```console\n"
        f"$ mer-zoo import {layout} FEATURES.pkl --output data/{layout}\n"
        f"$ mer-zoo train {name} --data data/{layout}\n```"
    )
