"""Every page of the site as a reader sees it: in a browser, at desktop and at phone width."""

import browser
import pytest
import site_building

WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def reader():
    if browser.program() is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(browser.PROGRAMS)})")
    if why := site_building.missing():
        pytest.skip(why)
    folder, done = site_building.build()
    assert done.returncode == 0, done.stdout + done.stderr
    server, page = browser.Server(folder), browser.Browser()
    page.pages = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.html") if "_static" not in path.parts
    )
    page.address = server.address
    yield page
    page.close()
    server.close()


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


def test_every_page_shows_without_errors(reader):
    troubles = []
    for page in reader.pages:
        reader.size(WIDTHS["desktop"])
        reader.open(f"{reader.address}/{page}")
        reader.run(TYPESET)
        written, shown, broken = reader.run(FORMULAS)
        if shown < written or broken:
            troubles.append(f"{page}: {written} formulas, {shown} shown, {broken} broken")
        for name, width in WIDTHS.items():
            reader.size(width)
            if not all(reader.run(DIAGRAMS)):
                troubles.append(f"{page}, {name}: a diagram does not show")
            if reader.run(TOO_WIDE) > 1:
                troubles.append(f"{page}, {name}: wider than the window")
        troubles += [f"{page}: {trouble}" for trouble in reader.troubles]
        reader.troubles.clear()
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


def test_the_site_also_works_from_the_disk(reader):
    folder, _ = site_building.build()
    reader.troubles.clear()
    reader.open(f"file://{folder}/catalogue/fusion/gated.html")
    reader.run(TYPESET)
    written, shown, broken = reader.run(FORMULAS)
    assert written == shown > 0
    assert not broken
    assert not reader.troubles
    reader.open(f"file://{folder}/search.html?q=differential")  # finds pages; their excerpts may not be fetched
    reader.wait(f"{FOUND}.length > 0")
