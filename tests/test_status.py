"""What is said of a recipe's standing is what the committed numbers of published code bear out."""

import json
from pathlib import Path

from mer_zoo.cli import main
from mer_zoo.model import parity, parity_mapping, recipe, status


def files():
    for file in sorted((Path(__file__).parent / "parity").glob("*.npz")):
        if any(file.stem == stem or file.stem.startswith(f"{stem}_") for stem in parity_mapping.known()):
            yield file


def test_equal_are_the_recipes_whose_numbers_are_committed():
    held = {parity._read(file)[1].recipe for file in files()}
    assert held == status.compared()
    assert {name for name in recipe.names() if status.status(name) == status.EQUAL} == held


def test_whoever_extends_an_equal_recipe_is_its_variant(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: sdt/iemocap\ntitle: mine\n")
    assert status.status(str(mine)) == "variant of sdt/iemocap, which is equal to the published code"


def test_who_quotes_published_scores_has_a_published_model():
    for name in recipe.names():
        if recipe.read(name).recipe.published:
            assert status.status(name) != status.OWN


def test_list_tells_the_status_of_every_recipe(capsys):
    assert main(["list", "recipe", "--json"]) == 0
    told = {row["id"]: row["status"] for row in json.loads(capsys.readouterr().out)}
    assert told == {f"recipe/{name}": status.status(name) for name in recipe.names()}
    assert main(["list", "recipe", "dialoguecrn"]) == 0
    assert status.DESCRIBED in capsys.readouterr().out
