"""The generated pages of the site: complete and true."""

import contextlib
import doctest
import importlib
import io
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

pygments = pytest.importorskip("pygments")
from docs import generator  # noqa: E402
from docs.generator import drawings, notebooks, papers, parts, python, sessions, sources  # noqa: E402
from mer_zoo import registry  # noqa: E402
from mer_zoo.commands.describe import type_name, written  # noqa: E402
from mer_zoo.errors import MerZooError  # noqa: E402
from mer_zoo.model import recipe  # noqa: E402
from mer_zoo.registry import resources  # noqa: E402


@pytest.fixture(scope="module")
def check():
    """Return exit code, errors and pages of `python -m docs.generator --check`, in which every written text fails."""
    made, make, errors = [], generator.pages, io.StringIO()

    def pages(*arguments, **options):
        made.append(make(*arguments, **options))

    def never(path, *arguments, **options):
        raise AssertionError(f"{path} was written")

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", ["docs.generator", "--check"])
        patch.setattr(generator, "pages", pages)
        patch.setattr(Path, "write_text", never)
        with pytest.raises(SystemExit) as end:
            runpy.run_module("docs.generator", run_name="__main__")
    return end.value.code, errors.getvalue(), made


@pytest.fixture(scope="module")
def pages(check):
    (made,) = check[2]
    return made


def test_nothing_keeps_the_site_from_being_complete(check):
    code, errors, _ = check
    assert code == 0, errors


def test_a_fault_is_told_and_ends_the_check(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["docs.generator", "--check"])
    monkeypatch.setattr(generator, "faults", lambda: ["fusion/x: wrong."])
    monkeypatch.setattr(generator, "pages", lambda *arguments, **options: {})
    assert importlib.import_module("docs.generator.__main__").main() == 1
    assert capsys.readouterr() == ("docs: 1 faults.\n", "fusion/x: wrong.\n")


def test_every_card_and_recipe_has_a_page(pages):
    for card in registry.cards():
        assert f"catalogue/{card.kind}/{card.name}.md" in pages
    for name in recipe.names():
        assert f"models/{name.replace('/', '-')}.md" in pages


@pytest.fixture
def with_card(monkeypatch, tmp_path):
    """Add a card with its class to a copy of the registry; returns the card."""
    shutil.copytree(ROOT / "registry", tmp_path / "registry")
    folders = {"registry": tmp_path / "registry", "baselines": ROOT / "baselines"}
    monkeypatch.setattr(resources, "folder", folders.get)

    def add(meaning, paper):
        home = tmp_path / "registry" / "fusion"
        (home / "halved.py").write_text(
            f'class Halved:\n    """Half of everything.\n\n    Args:\n        {meaning}\n    """\n\n'
            "    def __init__(self, widths, *, share: float = 0.5):\n        self.out_width = 1\n"
        )
        (home / "halved.yaml").write_text(f"target: halved.py:Halved\nsummary: Half of everything.\npaper: {paper}\n")
        registry.refresh()
        return registry.find("fusion", "halved")

    yield add
    monkeypatch.undo()
    registry.refresh()


def test_a_new_card_has_a_page(with_card):
    card = with_card("share: which part of it, from 0 to 1.", "null")
    assert parts.faults([card]) == []
    page = parts.pages([card])["catalogue/fusion/halved.md"]
    assert "| `share` | `float` | `0.5` | which part of it, from 0 to 1. |" in page


def test_a_setting_without_meaning_is_a_fault(with_card):
    card = with_card("widths: of what comes in (a fact).", "nobody1900nothing")
    assert parts.faults([card]) == [
        "fusion/halved: no meaning under 'Args:' for the settings share.",
        "fusion/halved: paper 'nobody1900nothing' is not in references.bib.",
    ]


def test_settings_on_a_page_are_those_of_the_signature(pages):
    page = pages["catalogue/layer/differential_gat.md"].replace("\\|", "|")
    for setting in registry.settings("layer", registry.load(registry.find("layer", "differential_gat"))).values():
        assert f"| `{setting.name}` | `{type_name(setting.type)}` | `{written(setting.default)}` |" in page
    assert "[amb_dsgdn/iemocap](#recipe-amb_dsgdn-iemocap)" in page
    assert re.search(r"_modules/mer_zoo/parts/layer/differential_gat.html#L\d+", page)


def test_recipe_pages_keep_published_and_measured_apart(pages):
    page = pages["models/amb_dsgdn-iemocap.md"]
    published, measured = page.split("## Published scores")[1].split("## Measured here")
    assert "75.67" in published
    assert "epoch chosen on **test**" in published
    assert "75.67" not in measured
    assert "13,133,234 parameters" in page
    assert "12,481,973 parameters" in pages["models/amb_dsgdn-meld.md"]


def test_drawings_show_the_builder():
    caption, figures = drawings.relations(registry.find("graph", "self_cross_speaker"))
    assert "window: 2" in caption
    for relation in ("self_loop", "same_speaker_past", "other_speaker_future"):
        figure = figures.split(f"<code>{relation}</code>")[1].split("</figure>")[0]
        builder_edges = {"self_loop": 6, "same_speaker_past": 3, "other_speaker_future": 6}[relation]
        assert figure.count("marker-end") == builder_edges


def test_references_to_code_resolve_and_rot_is_seen():
    path, line = sources.find("mer_zoo/parts/layer/differential_gat.py :: both = edges.softmax(")
    assert "both = edges.softmax(" in (ROOT / path).read_text().splitlines()[line - 1]
    with pytest.raises(MerZooError, match="on 0 lines"):
        sources.find("mer_zoo/parts/layer/differential_gat.py :: triple = edges.softmax(")
    with pytest.raises(MerZooError, match="no file"):
        sources.find("mer_zoo/layers/gone.py")
    assert len(sources.ROLE.findall((ROOT / "docs/understand/amb_dsgdn.md").read_text())) > 30


def test_a_docstring_becomes_what_sphinx_reads():
    lines = [
        r"Double, as $y$.  $$y = 2x$$ See `GraphBuilder`.",
        "",
        "Args:",
        "    x, y: `[*edges]`, see `GraphBuilder`s.",
    ]
    python.on_docstring(None, "class", "Double", None, None, lines)
    graph_builder = "py:obj:`~mer_zoo.graph.base.GraphBuilder`"
    assert lines == [
        *("Double, as :math:`y`.", "", ".. markdown::", ""),
        *("   $$", "   y = 2x", "   $$", "   ", "   See {py:obj}`~mer_zoo.graph.base.GraphBuilder`.", ""),
        *("Args:", f"    x, y: ``[*edges]``, see :{graph_builder}\\ s.", ""),
    ]


def test_examples_in_the_generator_hold():
    for path in sorted((ROOT / "docs/generator").glob("[a-z]*.py")):
        module = importlib.import_module(f"docs.generator.{path.stem}")
        assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0, path


def test_papers_are_cited():
    page = papers.pages({"hu2021mmgcn": ["[mmgcn](#recipe-mmgcn)"]})["papers.md"]
    assert "(paper-hu2021mmgcn)=" in page
    assert "cited by [mmgcn](#recipe-mmgcn)" in page


def test_the_first_component_takes_at_most_thirty_lines():
    lines = [
        line
        for name in ("peak.py", "with_peak.yaml", "suite.yaml")
        for line in (sessions.EXAMPLES / "first_component" / name).read_text().splitlines()
        if line.strip()
    ]
    assert len(lines) <= 30


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_is_committed_without_outputs(name):
    nbformat = pytest.importorskip("nbformat")
    text = (sessions.EXAMPLES / name / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert text == nbformat.writes(notebook).rstrip("\n") + "\n"  # as Jupyter writes it, so differences stay small
