"""The table and the HTML report say what the results say, and nothing unescaped."""

import builtins
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from comparison_results import fabricate
from rich.console import Console

from mer_zoo.comparison.report import comparison_table, write_html
from mer_zoo.errors import MerZooError

MODELS = {"amb_dsgdn": 0.62, "mmgcn": 0.58, "bilstm": 0.5}
BEWARE = "Text features look fitted on the train labels."


def results():
    return [
        fabricate(
            model,
            seed=seed,
            skill=skill,
            dataset=dataset,
            ceiling=0.8 if dataset == "synthetic" else None,
            warnings=(BEWARE,) if dataset == "mosi" else (),
            rates=model == "amb_dsgdn",
        )
        for model, skill in MODELS.items()
        for seed in range(3)
        for dataset in ("synthetic", "mosi")
    ]


def printed(what, width=80):
    text = io.StringIO()
    Console(file=text, width=width).print(comparison_table(what))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_holds_everything(width):
    text = printed(results(), width)
    assert max(map(len, text.splitlines())) <= width
    for model in MODELS:
        assert re.search(rf"{model} +\d\d\.\d\d ± \d+\.\d\d +\d\d\.\d\d ± ", text)
    words = " ".join(text.split())
    assert "Warning about this data: " + BEWARE in words
    assert re.search(r"ceiling.* 80\.00 ", text)
    assert "With 3 shared seeds no difference can be called significant" in words
    assert "13,133,234" in text
    assert "512 MB" in text
    assert "1.0 s" in text
    assert "SELECTED ON TEST" not in text
    # The better model stands above.
    assert text.index("amb_dsgdn") < text.index("mmgcn") < text.index("bilstm")


def test_selection_on_test_is_watermarked():
    what = [*results(), *(fabricate(model, dataset="mosi", protocol="test-oracle") for model in MODELS)]
    assert printed(what).count("SELECTED ON TEST") == 2


def test_names_are_not_markup():
    assert "[red]x[/red]" in printed([fabricate("[red]x[/red]")], 160)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    evil = "<script>alert('$x$')</script>"
    published = [{"model": "AMB-DSGDN", "metric": "weighted F1", "value": 75.67, "where": evil, "selected_on": "test"}]
    what = [*results(), fabricate(evil, dataset="mosi"), fabricate("mmgcn", dataset="mosi", protocol="test-oracle")]
    return write_html(what, tmp_path_factory.mktemp("report") / "report.html", published=published)


def test_the_report_is_one_well_formed_file_that_loads_nothing(page):
    text = page.read_text()
    parsed = Page(text)
    assert parsed.open == []
    assert not parsed.all("script")
    assert not parsed.all("link")
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in parsed.all("img"))
    assert all(link["href"].startswith("#") for link in parsed.all("a"))
    assert "@import" not in text
    assert "url(" not in text


def test_the_report_shows_every_figure_and_describes_it(page):
    text = page.read_text()
    images = Page(text).all("img")
    assert all(image["alt"].endswith(".") for image in images)
    for caption in (
        "Weighted F1 (dot",
        "Accuracy (dot",
        "Score against time",
        "F1 per class",
        "Weighted F1 per epoch, validation",
        "Loss per epoch, train",
        "Balancing rates of amb_dsgdn",
        "Confusion of mmgcn",
    ):
        assert caption in text
    assert any("The ceiling is 80.00" in image["alt"] for image in images)


def test_the_report_warns_and_keeps_published_scores_apart(page):
    text = page.read_text()
    assert BEWARE in text
    assert "&lt;script&gt;" in text
    measured, published = text.split('<h2 id="published">')
    assert "75.67" in published
    assert "AMB-DSGDN" not in measured
    assert "not measured here" in published
    oracle = measured.split("<h2")[-1]
    assert "SELECTED ON TEST" in oracle.split("</h2>")[0]
    alts = re.findall(r'alt="(.*?)"', oracle)
    assert alts
    assert all("SELECTED ON TEST" in alt for alt in alts)


def test_the_same_results_give_the_same_file(page, tmp_path):
    one = write_html(results()[:2], tmp_path / "one.html").read_text()
    assert write_html(results()[:2], tmp_path / "two.html").read_text() == one


def test_missing_extras_are_named(monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "jinja2":
            raise ImportError("No module named 'jinja2'", name="jinja2")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MerZooError, match=r"needs jinja2.*pip install mer-zoo\[report\]"):
        write_html(results(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_browser_draws_the_report(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium or Chrome on this machine")
    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=400,3000", f"--screenshot={shot}"]
    subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True, timeout=120)
    assert shot.stat().st_size > 20_000
