"""What shows itself does so alike in a terminal, a notebook and a data frame, whatever the names."""

import html.parser
import io
import sys

import pytest
from comparison_results import fabricate
from rich.console import Console

import mer_zoo
from mer_zoo.comparison.report import comparison_table
from mer_zoo.comparison.results import Results
from mer_zoo.errors import MerZooError
from mer_zoo.showing import Shown, Table, Words

RUNS = [fabricate("A"), fabricate("A", seed=1), fabricate("B", skill=0.4)]
NASTY = "<script>alert(1)</script>[red]\x1b[31m&\u202e\n:smile:"


class Both(Shown):
    def shown(self):
        yield Words(NASTY, "title")
        yield Words("two\nlines")
        yield Table(["name", "n", "cost"], [[NASTY, "1", "2"], ["b", "3", "–"]], NASTY, numbers=[1, 2], aside=[2])


class Reader(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def terminal(what, width):
    text = io.StringIO()
    Console(file=text, width=width).print(what)
    return text.getvalue()


def test_names_are_shown_never_obeyed():
    page = Reader(Both()._repr_html_())
    assert set(page.tags) <= {"div", "p", "b", "br", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "<script>alert(1)</script>[red]\\x1b[31m&\\u202e\\n:smile:" in page.texts
    for text in (terminal(Both(), 200), str(Both()), repr(Both())):
        assert "<script>alert(1)</script>[red]\\x1b[31m&\\u202e" in text
        assert ":smile:" in text
        assert "\x1b" not in text


def test_a_narrow_terminal_gets_two_tables():
    wide, narrow = terminal(Both(), 200), terminal(Both(), 30)
    assert wide.count("name") == 1
    assert narrow.count("name") == 2
    assert narrow.split("cost")[1].split().count("b") == 0  # has no cost


def test_a_data_frame_has_the_rows(monkeypatch):
    pytest.importorskip("pandas")
    frame = Both().to_dataframe()
    assert list(frame.columns) == ["name", "n", "cost"]
    assert frame.name[0] == NASTY
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MerZooError, match="pip install pandas"):
        Both().to_dataframe()


def test_results_are_a_list_that_is_a_table():
    runs = Results(RUNS)
    assert runs == RUNS
    assert str(runs) == str(comparison_table(RUNS))
    assert runs._repr_html_().count("<table>") >= 1
    frame = runs.to_dataframe()
    assert len(frame) == len(runs)
    assert list(frame.weighted_f1) == [round(run.metrics.test.weighted_f1, 6) for run in runs]
    assert str(Results()) == "no results"


def test_a_result_shows_its_scores_and_gives_its_predictions():
    run = RUNS[0]
    assert f"{100 * run.metrics.test.weighted_f1:.2f}" in str(run)
    assert run.dataset.label_names[0] in run._repr_html_()
    frame = run.to_dataframe()
    scored = frame[frame.label.notna()]
    assert (scored.label == scored.predicted).mean() == pytest.approx(run.metrics.test.accuracy)
    assert len(frame) == sum(len(one.label) for one in run.predictions.values())


def test_descriptions_and_findings_show_themselves():
    known = mer_zoo.describe("fusion/gated")
    assert "out_width" in known._repr_html_()
    assert "out_width" in str(known)
    found = mer_zoo.check_part("fusion", "concat", only="s*")
    assert [finding.check for finding in found] == list(found.to_dataframe().check)
    assert "shape" in found._repr_html_()
    assert "ok" in str(found)
