"""The family tree tells of every model all its parts, and follows the recipes."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

pytest.importorskip("pygments")
from docs.generator import family
from mer_zoo.model import recipe


def told(lines):
    """Model -> parts on its line and on the lines above it."""
    found, above = {}, []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        above = [(depth, parts) for depth, parts in above if depth < indent]
        parts = set(re.findall(r"\[(\w+)/(\w+)\]\(#part-\1-\2\)", line))
        model = re.match(r"\s*- \[(\w+)\]\(#recipe-", line)
        if model:
            assert model[1] not in found
            found[model[1]] = parts.union(*(more for _, more in above))
        else:
            assert parts, line
            above.append((indent, parts))
    return found


def test_every_model_stands_there_once_with_all_its_parts():
    models = family.families()
    fitted = {name for name in recipe.names() if recipe.read(name).recipe.learner is not None}
    assert models.keys() == {name for name in recipe.names() if "/" not in name} - fitted
    assert told(family.outline(family.tree(models))) == models


def test_a_model_more_stands_beside_what_it_shares_rare_parts_with():
    models = family.families()
    models["newcomer"] = models["mm_dfn"] - {("loss", "focal")}
    tree = family.tree(models)
    assert told(family.outline(tree)) == models

    def smallest(branch):
        inside = [one for one in branch.branches if "newcomer" in one.models and one.branches]
        return smallest(inside[0]) if inside else branch

    assert set(smallest(tree).models) == {"newcomer", "mm_dfn"}


def test_common_parts_bring_nobody_together():
    rare, common = ("layer", "rare"), ("loss", "nll")
    models = {"a": {rare}, "b": {rare, common}, "c": {common}, "d": {common, ("head", "mlp")}}
    tree = family.tree({name: frozenset(parts) for name, parts in models.items()})
    assert {frozenset(branch.models) for branch in tree.branches} == {frozenset("ab"), frozenset("cd")}
