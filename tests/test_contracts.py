"""Every card keeps the contract of its kind and its promises; none escapes."""

import ast
from pathlib import Path

import pytest

from mer_zoo import registry
from mer_zoo.checking import inspect_part
from mer_zoo.registry import document, references, resources

EXCEPTIONS = document.plain((Path(__file__).parent / "contract_exceptions.yaml").read_text()) or {}
CARDS = [card.id for card in registry.cards() if "/" not in card.name]


@pytest.mark.parametrize("card_id", CARDS)
def test_contract(card_id):
    allowed = EXCEPTIONS.get(card_id, {})
    found = list(inspect_part(*registry.split(card_id)))
    faults = {finding.check: finding.fault for finding in found if not finding.fine}
    assert {check: fault for check, fault in faults.items() if check not in allowed} == {}
    assert [check for check in allowed if check not in faults] == [], "take it off tests/contract_exceptions.yaml"
    checks = {finding.check for finding in found}
    promises = registry.find(*registry.split(card_id)).promises
    unproved = [p for p in promises if not checks & {f"promise {p}", "stacking" if p == "unstackable" else ""}]
    assert unproved == []


def test_no_card_escapes():
    root = resources.folder("registry")
    files = {f"{path.parent.name}/{path.stem}" for path in root.glob("*/*.yaml")}
    assert files == set(CARDS)
    assert {path.name for path in root.iterdir()} - set(registry.KINDS) == {"references.bib", "templates"}


def test_no_part_escapes():
    """A class that is called like its file is a part, and has a card."""
    targets = {card.target for card in registry.cards()} | {"mer_zoo.kernel.blocks:Blocks"}  # an abstract base
    root = Path(registry.__file__).parent
    for room in ("encoders", "graph", "edge_weights", "layers", "fusion", "balancing", "heads", "losses", "kernels"):
        for path in (root / room).glob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem.replace("_", ""):
                    assert f"mer_zoo.{room}.{path.stem}:{node.name}" in targets, f"{path} has no card"


def test_every_exception_names_a_card():
    assert set(EXCEPTIONS) <= set(CARDS)


def test_cards_are_well_formed():
    assert registry.card_faults() == ()
    for card in registry.cards():
        assert registry.read_card(Path(card.origin), card.kind).target == card.target
        assert card.summary.endswith("."), card.id


def test_papers_resolve():
    known = references.references()
    cited = {card.id: card.paper for card in registry.cards() if card.paper is not None}
    assert {card: paper for card, paper in cited.items() if paper not in known} == {}


def test_every_promise_has_a_sentence_and_a_kind():
    assert set(registry.PROMISES) == set(registry.PROMISED_BY)
    assert all(set(kinds) <= set(registry.KINDS) for kinds in registry.PROMISED_BY.values())
