"""The README tells the truth: its table comes from committed results, its code runs."""

import re

from mer_zoo.api import running
from mer_zoo.comparison.summary import markdown, read_csv


def test_the_table_is_made_from_committed_results(pytestconfig):
    text = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- comparison -->")[1].split("<!-- /comparison -->")[0]
    (name,) = re.findall(r"`(baselines/results/[^`]+\.csv)`", shown)
    assert markdown(read_csv(pytestconfig.rootpath / name)) in shown


def test_the_six_lines_run(pytestconfig, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (pytestconfig.rootpath / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    small = {"name": "synthetic", "dialogues": [12, 4, 4], "utterances": [3, 6]}
    compare = running.compare
    monkeypatch.setattr(running, "compare", lambda models, **given: compare(models, small, workers=1, **given))
    code = code.replace('"training.epochs": 5', '"training.epochs": 2')  # it need not learn
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "report.html").stat().st_size > 10_000
