"""The family tree of the zoo: which parts which models share, read off the recipes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from docs.generator.pages import Pages, recipe_anchor, table
from mer_zoo.data.loading import load
from mer_zoo.model import filling, recipe
from mer_zoo.registry import KINDS

Part = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True)
class Branch:
    """Models that share parts; a single model is a branch without branches.

    Attributes:
        models: their recipes.
        shared: the parts that all of them have.
        branches: what it divides into.
    """

    models: tuple[str, ...]
    shared: frozenset[Part]
    branches: tuple[Branch, ...] = ()


def families() -> dict[str, frozenset[Part]]:
    """Return the parts of every model in its form for any data."""
    widths = load("synthetic").widths
    found = {}
    for name in recipe.names():
        file = recipe.read(name)
        if "/" not in name and file.recipe.learner is None:
            parts = filling.fill(file, widths).parts()
            found[name] = frozenset((kind, part.name) for kind, part in parts) - {("balancing", "none")}
    return found


def tree(models: Mapping[str, frozenset[Part]]) -> Branch:
    r"""Join the two nearest branches until there is one; models are near that share parts few others have.

    Nearness is the share of common parts, a part that n of N models have counting $\log(N / n)$, averaged over the
    models of both branches.

    Example:
        >>> words = {"a": {1, 2}, "b": {1, 2}, "c": {3}}
        >>> [branch.models for branch in tree({m: frozenset(x) for m, x in words.items()}).branches]
        [('c',), ('a', 'b')]
    """
    counts = Counter(part for parts in models.values() for part in parts)

    def weigh(parts: frozenset[Part]) -> float:
        return sum(math.log(len(models) / counts[part]) + 1e-9 for part in parts)

    def nearness(pair: tuple[Branch, Branch]) -> float:
        between = list(itertools.product(*(branch.models for branch in pair)))
        return sum(weigh(models[a] & models[b]) / weigh(models[a] | models[b]) for a, b in between) / len(between)

    branches = [Branch((name,), parts) for name, parts in models.items()]
    while len(branches) > 1:
        a, b = max(itertools.combinations(branches, 2), key=nearness)
        branches = [branch for branch in branches if branch not in (a, b)]
        branches.append(Branch(a.models + b.models, a.shared & b.shared, (a, b)))
    return branches[0]


def outline(branch: Branch, above: frozenset[Part] = frozenset(), depth: int = 0) -> Iterator[str]:
    """Yield a line for every branch that shares more than the branch above it, and for every model."""
    more = branch.shared - above
    name = branch.models[0]
    own = f"[{name}](#recipe-{recipe_anchor(name)})" if not branch.branches else ""
    if more or own:
        yield "  " * depth + "- " + ": ".join(text for text in (own, _links(more)) if text)
        depth += 1
    for below in branch.branches:
        yield from outline(below, branch.shared, depth)


def pages() -> Pages:
    """Return the page of the family tree."""
    models = families()
    users: dict[Part, list[str]] = {}
    for name, parts in models.items():
        for part in parts:
            users.setdefault(part, []).append(f"[{name}](#recipe-{recipe_anchor(name)})")
    shared = [part for part in users if len(users[part]) > 1]
    order = sorted(shared, key=lambda part: (-len(users[part]), list(KINDS).index(part[0]), part))
    rows = [(_links(frozenset([part])), len(users[part]), ", ".join(users[part])) for part in order]
    text = [
        "# The family tree",
        "What the models are made of, and what they share: each in its form for any data, read off the recipes each "
        "time the site is built. A line says what all models below it have in common, beside what stands on the lines "
        "above; behind a model stands what is its own there. Models stand close that share parts few others have.",
        ":::{container} family\n" + "\n".join(outline(tree(models))) + "\n:::",
        "## Shared parts",
        table(["part", "models", "which"], rows),
    ]
    return {"models/family.md": "\n\n".join(text)}


def _links(parts: frozenset[Part]) -> str:
    ordered = sorted(parts, key=lambda part: (list(KINDS).index(part[0]), part))
    return ", ".join(f"[{kind}/{name}](#part-{kind}-{name})" for kind, name in ordered)
