"""The table and the HTML report say what the results say, and nothing unescaped."""

import builtins
import csv
import io
import itertools
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from comparison_results import fabricate
from rich.cells import cell_len
from rich.console import Console
from test_cli import run as command

from mer_zoo.comparison import summary, table, utterances
from mer_zoo.comparison.broken import Broken
from mer_zoo.comparison.findings import findings
from mer_zoo.comparison.report import comparison_table, write_html
from mer_zoo.comparison.statistics import compare
from mer_zoo.comparison.summary import read_csv, write_csv
from mer_zoo.comparison.table import latex, markdown
from mer_zoo.data.loading import load
from mer_zoo.errors import MerZooError
from mer_zoo.results import metrics
from mer_zoo.results.result import write_result

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
    assert "With 3 seeds no difference is claimed: that takes 6." in words
    assert "clear over dialogues; too few seeds: 3 of 6" in words
    assert "Gap" not in words  # nobody looked at test
    assert "13,133,234" in text
    assert "512 MB" in text
    assert "1.0 s" in text
    assert "SELECTED ON TEST" not in text
    # The better model stands above.
    assert text.index("amb_dsgdn") < text.index("mmgcn") < text.index("bilstm")


def oracle_results(*names):
    return [
        fabricate(name, seed=seed, dataset="mosi", protocol="test-oracle", skill=0.5)
        for name in names or ("mmgcn", "bilstm")
        for seed in range(2)
    ]


def scores(oracle):
    """Weighted F1 of `mmgcn` as tables print it, and its gap."""
    runs = oracle_results("mmgcn")
    values = [100 * (r.oracle_metrics if oracle else r.metrics.test).weighted_f1 for r in runs]
    gap = sum(r.oracle_metrics.weighted_f1 - r.metrics.test.weighted_f1 for r in runs) / len(runs)
    assert gap > 0
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}", f"+{100 * gap:.2f}"


def test_scores_chosen_on_test_stand_under_their_own_name_in_every_export(tmp_path):
    runs = oracle_results()
    (honest, gap), (chosen, _) = scores(oracle=False), scores(oracle=True)
    assert honest != chosen
    html = write_html(runs, tmp_path / "report.html").read_text()
    exports = {
        "terminal": printed(runs, 200),
        "markdown": markdown(runs),
        "latex": re.sub(r"\\(textbf|underline){(.*?)}", r"\2", latex(runs).replace(r"$\pm$", "±")),
        "html": re.sub(r"</?(th|td|span)[^>]*>|baseline", " ", html),
    }
    for name, text in exports.items():
        assert "SELECTED ON TEST" in text, name
        (row,) = [line for line in text.splitlines() if re.search(rf"mmgcn\W+{re.escape(honest)}", line)]
        (oracle,) = [line for line in text.splitlines() if "mmgcn (oracle)" in line]
        assert gap not in row, name
        assert chosen in oracle, name
        assert gap in oracle, name
        assert "SELECTED" not in printed(results())
    table = read_csv(write_csv(runs, tmp_path / "summary.csv"))
    for row, run in zip(table, runs, strict=True):
        assert row["watermark"] == "oracle scores SELECTED ON TEST"
        for score in metrics.SCORES:
            assert float(row[score]) == pytest.approx(getattr(run.metrics.test, score), abs=1e-6)
            assert float(row[f"oracle_{score}"]) == pytest.approx(getattr(run.oracle_metrics, score), abs=1e-6)
        gap = run.oracle_metrics.weighted_f1 - run.metrics.test.weighted_f1
        assert float(row["gap"]) == pytest.approx(gap, abs=1e-6)
    assert "SELECTED ON TEST" in summary.markdown(table)
    assert "| mmgcn (oracle) |" in summary.markdown(table)


def test_oracle_and_honest_results_stand_in_one_report():
    text = printed([*results(), *oracle_results()], 160)
    assert text.index("mosi (6 classes") < text.index("oracle rows SELECTED ON TEST")


def test_without_a_best_epoch_on_test_nothing_is_put_in_its_place():
    text = printed([fabricate("mmgcn", protocol="test-oracle", oracle=False)])
    assert "mmgcn (oracle)" not in text
    assert "No best epoch on test is recorded for mmgcn." in " ".join(text.split())


EVIL = "=HYPERLINK(1) [/x] [red]\x1b[31m<b>&|$_"


@pytest.mark.attack("C15", "H2")
def test_names_are_shown_and_never_obeyed(tmp_path):
    runs = [fabricate(name, seed=seed, names=("a", "b\x1b[2J", "c")) for name in (EVIL, "-1+1") for seed in range(2)]
    for text in (printed(runs, 200), printed(runs), write_html(runs, tmp_path / "r.html").read_text(), markdown(runs)):
        assert "\x1b" not in text
    assert EVIL.replace("\x1b", "\\x1b") in printed(runs, 200)
    assert "<b>" not in (tmp_path / "r.html").read_text()
    assert "<b>" not in markdown(runs)
    assert r"[\$\_" not in latex(runs)
    assert r"{[}/x{]} {[}red{]}\textbackslash{}x1b{[}31m$<$b$>$\&\textbar{}\$\_" in latex(runs)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles_whatever_the_names(tmp_path):
    runs = [
        fabricate(name, seed=seed, protocol=protocol, names=("fröh_lich", "tr&urig", "^e~\\"), warnings=("50 % of_it",))
        for name in (r"a_&%$#{}~^\ b", "Grüße, Äpfel – ß €", "[x] *y* <z> |w| @ ±−", EVIL)
        for seed in range(2)
        for protocol in ("validation", "test-oracle")
    ]
    head, tail = r"\documentclass{article}\usepackage{booktabs}\begin{document}", r"\end{document}"
    (tmp_path / "page.tex").write_text(f"{head}\n{latex(runs)}\n{tail}\n", encoding="utf-8")
    flags = ["-interaction=nonstopmode", "-halt-on-error", "-draftmode"]
    done = subprocess.run(["pdflatex", *flags, "page.tex"], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_latex_marks_the_best_and_the_second_best_of_every_score():
    runs = [fabricate(name, seed=seed, skill=skill) for name, skill in MODELS.items() for seed in range(2)]
    lines = {line.split(" & ")[0].strip(): line for line in latex(runs).splitlines() if line.count(" & ") > 4}
    for name, mark in zip((r"amb\_dsgdn", "mmgcn", "bilstm"), (r"\textbf{", r"\underline{", None), strict=True):
        assert lines[name].count(r"\textbf{") == (len(metrics.SCORES) if mark == r"\textbf{" else 0)
        assert lines[name].count(r"\underline{") == (len(metrics.SCORES) if mark == r"\underline{" else 0)
    assert r"\textbf" not in latex(runs[:2]).replace(" ", "")  # nobody to be better than


@pytest.mark.attack("D5")
def test_a_spreadsheet_runs_no_name_and_every_number_stays_one(tmp_path):
    runs = [fabricate(name) for name in (EVIL, "-1+1", "+a", "@b", "plain", "'quoted")]
    path = write_csv(runs, tmp_path / "summary.csv")
    with path.open(newline="") as file:
        raw = list(csv.DictReader(file))
    assert [row["model"][:2] for row in raw] == ["'=", "'-", "'+", "'@", "pl", "'q"]
    assert all(float(row["weighted_f1"]) > 0 for row in raw)
    assert [row["model"] for row in read_csv(path)] == [run.recipe_name for run in runs]
    worse = fabricate(protocol="test-oracle")
    low = worse.metrics.test.model_copy(update={"weighted_f1": 0.1})
    worse = worse.model_copy(update={"oracle_metrics": low})
    assert float(read_csv(write_csv([worse], path))[0]["gap"]) < 0
    assert ",-0." in path.read_text()
    with pytest.raises(MerZooError, match="protocol: test-oracle, validation cannot share a table"):
        summary.markdown(read_csv(write_csv([worse, fabricate()], path)))


def test_eighty_columns_hold_the_tables():
    runs = [
        fabricate(name, seed=seed, protocol="test-oracle", ceiling=0.9, skill=skill)
        for name, skill in {"AMB-DSGDN without balancing, text only": 0.6, "b": 0.3}.items()
        for seed in range(6)
    ]
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for row in (*table.rows(compare(runs)), *table.pair_rows(compare(runs))):
        for key in ("weighted_f1", "unweighted_recall", "gap", "interval", "p"):
            assert row.get(key, "") in text


@pytest.mark.parametrize("protocol", ["validation", "test-oracle"])
def test_eighty_columns_break_no_name_of_a_recipe(protocol):
    names = ("AMB-DSGDN/no-balancing", "graphsmile/sentiment", "dialoguegcn/mianzhang")
    runs = [fabricate(name, seed=seed, protocol=protocol) for name in names for seed in range(3)]
    lines = printed(runs).splitlines()
    assert max(map(len, lines)) <= 80
    for row in (*table.rows(compare(runs)), *table.pair_rows(compare(runs))):
        for key, cell in row.items():
            for word in cell.split() if key in ("model", "verdict") else [cell.strip("–")]:
                assert any(word in line for line in lines), word


def test_wide_characters_fit_a_terminal_of_any_width():
    runs = [
        fabricate(name, seed=seed) for name in ("対話感情認識モデル改良版第二", "여러가지 모델") for seed in range(2)
    ]
    for width in (80, 100, 120, 200):
        lines = printed(runs, width).splitlines()
        assert max(map(cell_len, lines)) <= width
        assert sum("13,133,234" in line for line in lines) == 2


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
    assert not any("src" in script for script in parsed.all("script"))
    assert not parsed.all("link")
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in parsed.all("img"))
    assert all(link["href"].startswith("#") for link in parsed.all("a"))
    assert "@import" not in text
    assert "url(" not in text


def test_the_report_holds_its_own_exports_whatever_lies_beside_it(tmp_path):
    (tmp_path / "summary.csv").write_text("of another comparison")
    runs = results()
    links = Page(write_html(runs, tmp_path / "page.html", baseline="mmgcn").read_text()).all("a")
    held = {one["download"]: b64decode(one["data-base64"]).decode() for one in links if "data-base64" in one}
    assert held.pop("summary.csv") == write_csv(runs, tmp_path / "mine.csv").read_text()
    assert held.pop("summary.json") == summary.as_json(runs)
    assert held == {"summary.md": markdown(runs, baseline="mmgcn"), "summary.tex": latex(runs, baseline="mmgcn")}


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
    # what shows scores chosen on test says so, and what does not show them does not
    assert [alt.split()[0] for alt in alts if "SELECTED ON TEST" in alt] == ["Weighted"]
    assert "mmgcn (oracle)" in oracle
    assert "SELECTED ON TEST" not in "".join(measured.split("<h2")[:-1]).split("</nav>")[1]


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


def test_a_picture_is_taken_in_the_theme_that_the_reader_prefers(page, tmp_path):
    import browser

    if browser.program() is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(browser.PROGRAMS)})")
    reader = browser.Browser(pictures=True)
    try:
        reader.size(WIDTHS["phone"])
        for theme in ("light", "dark"):
            preferred = [{"name": "prefers-color-scheme", "value": theme}]
            reader.call("Emulation.setEmulatedMedia", features=preferred)
            reader.open(page.as_uri())
            assert reader.run("document.documentElement.dataset.theme") == theme
            reader.picture(tmp_path / theme, whole=False)
        assert (tmp_path / "light").read_bytes() != (tmp_path / "dark").read_bytes()
    finally:
        reader.close()


WIDTHS = {"desktop": 1280, "phone": 390}


def test_a_reader_sorts_unfolds_and_changes_dialogue_and_theme(page):
    import browser

    if browser.program() is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(browser.PROGRAMS)})")
    reader = browser.Browser()
    try:
        for width in WIDTHS.values():
            reader.size(width)
            reader.open(page.as_uri())
            assert reader.run("document.documentElement.scrollWidth - window.innerWidth") <= 1
        table = "document.querySelector('table.sortable')"
        names = f"[...{table}.tBodies[0].rows].filter(r => !r.className).map(r => r.cells[0].textContent)"
        before = reader.run(names)
        scores = f"[...{table}.tBodies[0].rows].filter(r => !r.className).map(r => parseFloat(r.cells[1].textContent))"
        for _ in range(2):
            reader.run(f"{table}.querySelectorAll('thead button')[1].click()")
            if reader.run(f"{table}.querySelectorAll('th')[1].getAttribute('aria-sort')") == "ascending":
                assert reader.run(scores) == sorted(reader.run(scores))
            else:
                assert reader.run(scores) == sorted(reader.run(scores), reverse=True)
        assert sorted(reader.run(names)) == sorted(before)
        printed = {"39 ms": 0.039, "4.8 s": 4.8, "1:23 min": 83, "2:01 h": 7260, "−1.5": -1.5, "1,234 MB": 1234}
        for text, number in printed.items():
            assert reader.run(f"value({{textContent: '{text}'}})") == pytest.approx(number)
        head = f"{table}.querySelector('th')"
        for order in ("ascending", "descending"):
            reader.run(f"{head}.querySelector('button').click()")
            assert reader.run(f"{head}.getAttribute('aria-sort')") == order
            assert reader.run(names) == sorted(before, reverse=order == "descending")
        after = f"[...{table}.tBodies[0].rows].filter(r => r.className == 'settings').length"
        assert reader.run(after) == len(before)
        reader.run(f"{table}.querySelector('summary').click()")
        assert reader.run(f"{table}.querySelector('details').open && {table}.querySelector('pre').offsetHeight > 0")
        said = "document.querySelector('.reader tbody').textContent"
        first = reader.run(said)
        reader.run("document.querySelector('.reader button + button').click()")
        assert reader.run(said) != first
        theme = "document.documentElement.dataset.theme"
        was, paper = reader.run(theme), "getComputedStyle(document.body).backgroundColor"
        colour = reader.run(paper)
        reader.run("document.getElementById('theme').click()")
        assert reader.run(theme) != was
        assert reader.run(paper) != colour
        for kind in (".exports a", "a.svg"):
            first = f"document.querySelector('{kind}')"
            reader.run(f"{first}.onclick()")
            saved = reader.run(f"fetch({first}.href).then(answer => answer.text())")
            assert saved.startswith({".exports a": "dataset,model,", "a.svg": "<?xml"}[kind])
        for theme_before in ("dark", "light"):
            reader.run(f"paint('{theme_before}')")
            reader.run("dispatchEvent(new Event('beforeprint'))")
            assert reader.run(theme) == "light"
            reader.run("dispatchEvent(new Event('afterprint'))")
            assert reader.run(theme) == theme_before
        reader.call("Emulation.setEmulatedMedia", media="print")
        assert reader.run(f"[...{table}.querySelectorAll('thead button')].every(one => one.offsetHeight > 0)")
        assert reader.run("document.getElementById('theme').offsetHeight") == 0
        assert reader.troubles == []
    finally:
        reader.close()


@pytest.mark.parametrize("by", ["marker", "linestyle"])
def test_many_models_look_different_with_and_without_lines(by):
    from mer_zoo.comparison.plots import look_of

    looks = [look_of(index) for index in range(28)]
    assert len({(look["color"], look[by]) for look in looks}) == len(looks)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_legend_of_long_names_fits_above_its_axes():
    from matplotlib.figure import Figure

    from mer_zoo.comparison import plots

    for name in ("a name that its author found good", "W" * 40, "対話の感情認識のための非常に長い名前", "short"):
        canvas = Figure(figsize=(plots.WIDTH, 3), layout="constrained")
        axes = canvas.subplots()
        for number in range(7):
            axes.plot([0, 1], [0, 1], label=plots.short(f"{number} {name}"))
        drawn = plots.legend(axes)
        canvas.draw_without_rendering()
        outer, inner = drawn.get_window_extent(), axes.get_window_extent()
        assert 0 <= outer.x0 < outer.x1 <= canvas.bbox.x1
        assert inner.y1 <= outer.y0 < outer.y1 <= canvas.bbox.y1
        assert inner.width > 0.8 * canvas.bbox.width
        assert inner.height > 1.5 * canvas.dpi


def test_a_class_that_is_not_in_test_has_no_score(tmp_path):
    runs = [fabricate("bilstm", seed=seed, names=(*"abcdef", "absent"), dialogues=6) for seed in range(2)]
    for run in runs:
        for one in run.predictions.values():
            one.label[:] = [-1 if label == 6 else label for label in one.label]
    text = write_html(runs, tmp_path / "page.html").read_text()
    (row,) = re.findall(r'<tr><th scope="row">absent</th>(.*?)</tr>', text, re.DOTALL)
    assert re.findall("<td>(.*?)</td>", row) == ["0", "–"]


def test_findings_follow_from_the_statistics():
    runs = [fabricate("good", seed=s, skill=0.8) for s in range(6)] + [fabricate("bad", seed=s) for s in range(6)]
    found = findings(compare(runs, baseline="bad"))
    assert found[0].startswith("good has the highest mean weighted F1: ")
    assert re.fullmatch(
        r"good is ahead of bad by \d+\.\d points \[\d+\.\d, \d+\.\d\] over seeds and dialogues: clear\.", found[1]
    )
    few = findings(compare(runs[:3] + runs[6:9], baseline="bad"))
    assert "too few seeds to call it certain (3 of 6)." in few[1]
    assert "not clear" not in few[1]
    twins = [fabricate(name, seed=s, skill=0.5) for name in ("one", "two") for s in range(2)]
    assert re.search(r"\[−.* not clear, and too few seeds", findings(compare(twins))[1])
    alone = [run.model_copy(update={"recipe_name": name, "recipe": {}}) for run in twins[:2] for name in "ab"]
    assert re.search(r"^[ab] and [ab] are level \[.*not clear, and too few", findings(compare(alone))[1])
    assert findings(compare(twins[:1]))[0].startswith("one has a mean weighted F1 of ")
    turned = findings(compare(runs, baseline="good"))  # the baseline leads: said from the leader's side
    assert turned[1] == found[1]


def test_a_model_that_says_one_thing_is_flagged():
    runs = [fabricate("stuck", seed=s, skill=0.0) for s in range(2)]
    for run in runs:
        for one in run.predictions.values():
            one.predicted[:] = [0] * len(one.predicted)
    model = compare(runs).models[0]
    counts = np.zeros_like(model.confusion)
    counts[..., 0] = model.confusion.sum(-1)
    flagged = replace(compare(runs), models=(replace(model, confusion=counts),))
    warning = "Careful: stuck predicts one class for nearly every utterance in 2 of 2 seeds (mostly happy)."
    assert warning in findings(flagged)
    assert not any("Careful" in one for one in findings(compare([fabricate("fine")])))


def test_a_model_whose_runs_failed_is_a_row_that_says_so(tmp_path):
    runs = [fabricate("fine", seed=seed) for seed in range(2)] + [fabricate("shaky")]
    why = "the training loss is nan."
    broken = [Broken("wild", seed, "print-iemocap", f"wild, seed {seed}, epoch 1: {why}") for seed in range(2)]
    broken += [Broken("shaky", 1, "print-iemocap", "out of memory."), Broken("fine", 7, "other data", "elsewhere")]
    text = io.StringIO()
    Console(file=text, width=200).print(comparison_table(runs, baseline="wild", broken=broken))
    page = write_html(runs, tmp_path / "page.html", baseline="wild", broken=broken).read_text()
    marked, set_ = (form(runs, baseline="wild", broken=broken) for form in (markdown, latex))
    for export in (text.getvalue(), re.sub(r"</?(th|td)[^>]*>", " ", page), marked, set_):
        (row,) = [line for line in export.splitlines() if re.search(r"wild\W{2,}failed", line)]
        assert "0 of 2" in row
        assert any("shaky" in line and "1 of 2" in line for line in export.splitlines())
        assert "elsewhere" not in export
        if export != set_:
            assert f"Failed: wild, seed 1, epoch 1: {why}" in export
            assert "Failed: shaky, seed 1: out of memory." in export
            assert "wild has no results here" in export
    assert "Careful: wild failed in 2 runs" in page


def test_kinds_of_utterances_are_counted_as_they_are():
    data = load({"name": "synthetic", "dialogues": [4, 2, 5], "utterances": [3, 8]})
    names = data.label_names
    test = [replace(d, present={"audio": np.arange(len(d)) % 2 == 0}) for d in data.select(data.splits["test"])]
    right = {d.id: np.eye(len(names))[np.maximum(d.labels, 0)] for d in test}
    found = [
        utterances.Judged(d.id, d.labels, {"right": right[d.id], "wrong": np.roll(right[d.id], 1, 1)}, d) for d in test
    ]
    rows = {row["name"]: row for row in utterances.slices(found, names)}
    assert rows["all"]["utterances"] == sum((d.labels >= 0).sum() for d in test)
    assert all(row["values"] == {"right": 1.0, "wrong": 0.0} for row in rows.values())
    changes = sum(sum(a != b for a, b in itertools.pairwise(d.speakers)) for d in test)
    assert rows["speaker changes"]["utterances"] == changes
    assert rows["first of the dialogue"]["utterances"] == len(test)
    assert rows["same speaker goes on"]["utterances"] == rows["all"]["utterances"] - changes - len(test)
    assert rows["audio is missing"]["utterances"] == sum(len(d) // 2 for d in test)
    # a modality that a dialogue does not name is present everywhere in it
    half = [replace(one, said=replace(one.said, present={})) if i % 2 else one for i, one in enumerate(found)]
    missing = {row["name"]: row["utterances"] for row in utterances.slices(half, names)}["audio is missing"]
    assert missing == sum(len(one.said) // 2 for one in found[::2]) > 0
    assert utterances.disagreement(found) == {("right", "wrong"): 1.0}
    assert utterances.calibration(found, "right") == 0.0
    assert utterances.calibration(found, "wrong") == 1.0


def test_a_report_of_any_result_files(capsys, tmp_path):
    for run_of in results()[:4]:
        write_result(run_of, tmp_path / "runs")
    code, _, err = command(capsys, "report", tmp_path / "runs", "--output", tmp_path / "page.html")
    assert code == 0, err
    assert (tmp_path / "page.html").exists()
    code, _, err = command(capsys, "report", tmp_path, "--output", tmp_path / "p.html", "--baseline", "nobody")
    assert (code, "no results of 'nobody'" in err) == (2, True)
    (tmp_path / "empty").mkdir()
    code, _, err = command(capsys, "report", tmp_path / "empty")
    assert (code, "holds no result files" in err) == (2, True)


def test_a_report_takes_the_dialogues_of_its_results_and_no_others(capsys, tmp_path):
    settings = "{name: synthetic, dialogues: [4, 2, 3], utterances: [2, 4]}"
    (tmp_path / "suite.yaml").write_text(f"title: t\ndata: [{settings}]\nseeds: 1\nmodels: [majority]\n")
    code, _, err = command(capsys, "compare", tmp_path / "suite.yaml", "--output", tmp_path / "runs", "--workers", "1")
    assert code == 0, err
    report = ("report", tmp_path / "runs", "--output", tmp_path / "page.html", "--data")
    code, _, err = command(capsys, *report, settings)
    assert code == 0, err
    assert "speaker 0" in (tmp_path / "page.html").read_text()
    code, out, err = command(capsys, *report, "synthetic")
    assert (code, "--data synthetic: no result is of this dataset" in err, out) == (2, True, "")
    code, _, err = command(capsys, *report, "{name: [")
    assert (code, "--data {name: [: not valid YAML" in err) == (2, True)
