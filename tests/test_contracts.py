"""Every card keeps the contract of its kind and its promises; none escapes."""

import ast
from pathlib import Path

import pytest

from mer_zoo import registry
from mer_zoo.checking import check_names, inspect_part
from mer_zoo.model.plan import STAGE_KINDS, StageChoice
from mer_zoo.model.stages import STAGES
from mer_zoo.registry import document, references, resources

EXCEPTIONS = document.plain((Path(__file__).parent / "contract_exceptions.yaml").read_text()) or {}
CARDS = [card.id for card in registry.cards() if "/" not in card.name]


@pytest.mark.parametrize("card_id", CARDS)
def test_contract(card_id):
    if card_id == "tracker/wandb":
        pytest.importorskip("wandb", reason="needs wandb, of the extra track")
    allowed = EXCEPTIONS.get(card_id, {})
    found = list(inspect_part(*registry.split(card_id)))
    faults = {finding.check: finding.fault for finding in found if not finding.fine}
    assert {check: fault for check, fault in faults.items() if check not in allowed} == {}
    assert [check for check in allowed if check not in faults] == [], "take it off tests/contract_exceptions.yaml"


@pytest.mark.parametrize("card_id", CARDS)
def test_every_promise_and_number_is_checked(card_id):
    kind, name = registry.split(card_id)
    card, checks = registry.find(kind, name), set(check_names(kind, name))
    promised = {"stacking" if promise == "unstackable" else f"promise {promise}" for promise in card.promises}
    numbers = {
        f"setting {setting.name}"
        for setting in registry.settings(kind, registry.load(card)).values()
        if isinstance(setting.default, (int, float))
    }
    assert promised | numbers <= checks


def test_no_card_escapes():
    root = resources.folder("registry")
    files = {f"{path.parent.name}/{path.stem}" for path in root.glob("*/*.yaml")}
    assert files == set(CARDS)
    assert {path.name for path in root.iterdir()} - set(registry.KINDS) == {"references.bib", "templates"}


def test_no_part_escapes():
    """A class that is called like its file is a part, and has a card."""
    targets = {card.target for card in registry.cards()} | {"mer_zoo.kernel.blocks:Blocks"}  # an abstract base
    root = Path(registry.__file__).parent.parent
    found = []
    for path in (p for kind in registry.KINDS for p in (*root.glob(f"parts/{kind}/*.py"), *root.glob(f"{kind}/*.py"))):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem.replace("_", ""):
                found.append(f"{'.'.join(path.relative_to(root.parent).with_suffix('').parts)}:{node.name}")
    assert len(found) > 50
    assert set(found) <= targets


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
    assert set(registry.PROMISES) == {promise for kind in registry.KINDS.values() for promise in kind.promises}


def test_every_kind_of_stage_can_be_written_and_run():
    assert set(STAGE_KINDS) == set(STAGES) <= set(StageChoice.model_fields)
