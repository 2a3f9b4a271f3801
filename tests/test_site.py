"""The site as a build leaves it, and every page as a reader sees it: in a browser, at desktop and at phone width.

One file, so that one process builds: the generated pages lie beside the sources.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import browser
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

pytest.importorskip("pygments")
from docs.generator import sources  # noqa: E402
from docs.generator.pages import module, source_page  # noqa: E402

NEEDED = ("sphinx", "pydata_sphinx_theme", "myst_parser", "nbclient", "ipykernel", "pandas")
# what readers may be led to; nothing is fetched from there
KNOWN = (
    "https://www.sphinx-doc",
    "https://pydata",
    "https://optuna.org",
    "https://docs.ray.io",
    "https://doi.org",
)
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a strict build; its examples and notebooks ran for it."""
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(absent)} (extra `docs`)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def reader(site):
    if browser.program() is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(browser.PROGRAMS)})")
    server, page = browser.Server(site), browser.Browser()
    page.pages = sorted(
        path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts
    )
    page.address = server.address
    yield page
    page.close()
    server.close()


def test_the_site_builds_strictly(site):
    assert (site / "index.html").is_file()
    assert (site / "catalogue/fusion/gated.html").is_file()


def test_every_module_has_a_page_with_its_markdown_read(site):
    for path in sorted((ROOT / "mer_zoo").rglob("*.py")):
        if not path.stem.startswith("_"):
            assert (site / f"api/{module(path.relative_to(ROOT).as_posix())}.html").is_file(), path
    page = (site / "api/mer_zoo.graph.self_cross_speaker.html").read_text()
    assert "<table" in page  # of relations
    assert 'href="../_modules/mer_zoo/graph/self_cross_speaker.html#SelfCrossSpeaker"' in page
    page = re.sub(r"<[^>]+>", "", (site / "api/mer_zoo.parts.layer.differential_gat.html").read_text())
    assert re.search(r"Outputs:\s+float \[nodes, width\]\.", page)
    assert not re.search(r"`|\$|system-message", page.split("class mer_zoo")[1])


def test_links_to_code_lead_to_their_lines(site):
    seen = {}
    for page in site.rglob("*.html"):
        for href in re.findall(r'href="([^"#:]*(?:_modules|api)/[^"]+)"', page.read_text()):
            file, _, anchor = href.partition("#")
            target = (page.parent / file).resolve()
            if target not in seen:
                seen[target] = set(re.findall(r'id="([^"]+)"', target.read_text())) if target.is_file() else ()
            assert seen[target], (page, href)
            assert not anchor or anchor in seen[target], (page, href)
    path, line = sources.find("mer_zoo/graph/lowering.py :: def lower(")
    address = source_page(path, line, up=1)
    assert f'href="{address}"' in (site / "understand/architecture.html").read_text()
    lines = (site / address.removeprefix("../").partition("#")[0]).read_text().splitlines()
    (found,) = [text for text in lines if f'id="L{line}"' in text]
    assert re.match(rf"\s*{line}\s*def lower\(", re.sub(r"<[^>]+>", "", found))


def test_transcripts_are_produced_by_the_build(site):
    first = (site / "learn/first_component.html").read_text()
    assert "BiLSTM with peak" in first
    assert "Did you mean" in first
    assert "ceiling" in (site / "learn/tour.html").read_text()


def test_the_notebook_is_run_by_the_build(site):
    page = (site / "learn/notebook.html").read_text()
    assert page.count("data:image/png") == 2
    assert re.search(r"<td[^>]*>difference</td>", page)
    assert re.search(r"<th[^>]*>text alone</th>", page)
    assert "Traceback" not in page
    assert (site / next(iter(re.findall(r'href="\.\./(_downloads/[^"]+\.ipynb)"', page)))).is_file()


def test_no_page_names_another_machine(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        found = re.findall(r'(?:src|href)="(https?://(?!www\.dgl\.ai|semver\.org)[^"]+)"', text)
        assert not [url for url in found if not url.startswith(KNOWN)], page
        assert str(ROOT) not in text, page


TYPESET = "window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true"
FORMULAS = """(() => {
  const written = document.querySelectorAll('.math').length;
  const shown = [...document.querySelectorAll('mjx-container svg')];
  const broken = document.querySelectorAll('mjx-merror, [data-mml-node="merror"]').length;
  return [written, shown.filter(s => s.getBoundingClientRect().width > 1).length, broken];
})()"""
DIAGRAMS = """[...document.querySelectorAll('.relations svg, .stages, .way')].map(
  d => d.getBoundingClientRect().width > 100 && d.getBoundingClientRect().height > 20)"""
TOO_WIDE = """(() => document.documentElement.scrollWidth - window.innerWidth)()"""


def test_every_page_shows_without_errors(reader, site):
    """All but listings of code, which one template makes: of these, the longest and the one with the longest line."""
    listings = [page for page in reader.pages if page.startswith("_modules/")]
    lines = {page: re.sub(r"<[^>]+>", "", (site / page).read_text()).splitlines() for page in listings}
    for_all = {
        max(listings, key=lambda page: max(map(len, lines[page]))),
        max(listings, key=lambda page: len(lines[page])),
    }
    troubles, widths = [], list(WIDTHS.items())
    for page in sorted({*reader.pages} - {*listings} | for_all):
        reader.size(widths[0][1])
        reader.open(f"{reader.address}/{page}")
        reader.run(TYPESET)
        written, shown, broken = reader.run(FORMULAS)
        if shown < written or broken:
            troubles.append(f"{page}: {written} formulas, {shown} shown, {broken} broken")
        for name, width in widths:
            reader.size(width)
            if not all(reader.run(DIAGRAMS)):
                troubles.append(f"{page}, {name}: a diagram does not show")
            if reader.run(TOO_WIDE) > 1:
                troubles.append(f"{page}, {name}: wider than the window")
        troubles += [f"{page}: {trouble}" for trouble in reader.troubles]
        reader.troubles.clear()
        widths.reverse()  # the next page opens as wide as this one is: to lay out anew takes long
    assert not troubles, "\n".join(troubles)


@pytest.mark.parametrize("page", ["catalogue/graph/self_cross_speaker", "models/amb_dsgdn", "understand/architecture"])
def test_diagrams_are_there(reader, page):
    reader.open(f"{reader.address}/{page}.html")
    assert reader.run(DIAGRAMS)


FOUND = "[...document.querySelectorAll('#search-results li a')].map(a => a.getAttribute('href'))"


def test_search_finds_what_is_there(reader):
    reader.size(WIDTHS["desktop"])
    reader.open(f"{reader.address}/search.html?q=differential")
    reader.wait(f"{FOUND}.some(address => address.includes('catalogue/layer/differential_gat'))")
    assert not [address for address in reader.run(FOUND) if address.startswith("_modules/")]
    assert not reader.troubles


def test_the_site_also_works_from_the_disk(reader, site):
    reader.troubles.clear()
    reader.open(f"file://{site}/catalogue/fusion/gated.html")
    reader.run(TYPESET)
    written, shown, broken = reader.run(FORMULAS)
    assert written == shown > 0
    assert not broken
    assert not reader.troubles
    reader.open(f"file://{site}/search.html?q=differential")  # finds pages; their excerpts may not be fetched
    reader.wait(f"{FOUND}.length > 0")
