"""The page of what was measured here: every model of the zoo on several datasets, from the committed rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from docs.generator.pages import Pages, recipe_anchor
from mer_zoo.comparison import suite
from mer_zoo.comparison.summary import markdown, read_csv
from mer_zoo.registry import resources

Row = Mapping[str, str]

YARDSTICK = "Logistic regression"

DATA = {
    "synthetic": (
        "The synthetic dialogues",
        "Six emotions, three modalities, 120 dialogues to train on, made by the library; their "
        "[ceilings](../synthetic.md) are exact. `mer-zoo compare zoo`.",
    ),
    "mosi": (
        "MOSI",
        "Two classes, three modalities, one speaker a video: 62 videos to train on, 31 to test on, in the features of "
        "the bc-LSTM paper. Its text and visual features look fitted on the train labels (`mer-zoo validate` says so), "
        "so validation chooses badly and the scores do not rank models: this shows that all of them train on real "
        "features. `mer-zoo compare zoo --data data/mosi`.",
    ),
    "meld_text": (
        "MELD, text",
        "Seven emotions, up to nine speakers a dialogue, 1,038 dialogues to train on, 280 to test on; one modality, "
        "sentence embeddings that were not fitted on the labels. `mer-zoo compare zoo --data data/meld_text`.",
    ),
}
"""What readers need to know of a dataset: heading and text."""


def pages() -> Pages:
    """Return the page."""
    rows = read_csv(resources.folder("baselines") / "results" / "zoo.csv")
    models = suite.read("zoo").models
    text = [
        "(zoo-measured)=\n# The zoo, measured",
        "Every model in its form for any data, with the settings it ships with: nothing was tuned for any row. The "
        "epoch is chosen on validation, the test split opened once, afterwards. Mean ± standard deviation over seeds, "
        "in %. Few seeds and small data: differences of a point or two mean nothing here, and `mer-zoo compare` tests "
        "them. Seconds are those of a busy machine, and no measure of speed; for that see [](../performance.md).",
    ]
    for name, (heading, about) in DATA.items():
        found = [row for row in rows if row["dataset"] == name]
        if found:
            text += [f"## {heading}", about, _linked(markdown(found), models), _made(found, models)]
    return {"models/measured.md": "\n\n".join(text)}


def _linked(shown: str, models: Mapping[str, suite.Entry]) -> str:
    """Let the models in a table lead to their pages."""
    for name, entry in models.items():
        shown = shown.replace(f"| {name} |", f"| [{name}](#recipe-{recipe_anchor(entry.recipe)}) |")
    return shown


def _made(rows: Sequence[Row], models: Mapping[str, suite.Entry]) -> str:
    """Who is no better than a yardstick without context; how many seeds, on what, when; and what is missing."""
    seeds = {model: sum(row["model"] == model for row in rows) for model in models}
    usual = max(seeds.values())
    fewer = [f"{model} {count}" for model, count in seeds.items() if 0 < count < usual]
    missing = [model for model, count in seeds.items() if not count]
    scores = {m: statistics.fmean(float(r["weighted_f1"]) for r in rows if r["model"] == m) for m in models if seeds[m]}
    below = [m for m, score in scores.items() if m not in (YARDSTICK, "Majority class") and score <= scores[YARDSTICK]]
    days = sorted({row["finished"] for row in rows})
    one = rows[0]
    where = (
        f"{one['cpu_count']} cores, {one['platform']}, Python {one['python']}, torch {one['torch']}, DGL {one['dgl']}"
    )
    said = [f"Not above the logistic regression, which sees one utterance alone: {', '.join(below)}."] if below else []
    said += [f"{usual} seed{'s' * (usual > 1)} on {where}, {' to '.join(dict.fromkeys((days[0], days[-1])))}."]
    said += [f"Fewer seeds: {', '.join(fewer)}."] if fewer else []
    said += [f"Not measured: {', '.join(missing)}."] if missing else []
    return " ".join(said)
