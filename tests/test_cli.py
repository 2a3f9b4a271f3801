"""The command line: what a newcomer does, and every mistake answered by one message and exit code 2."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from mer_zoo.cli import main


def run(capsys, *arguments):
    """Return exit code, standard output and standard error of a command."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


FAST = ["-o", "training.epochs=2"]


def test_train_evaluate_predict(capsys, small_folder, tmp_path):
    code, out, _ = run(capsys, "train", "amb_dsgdn", "--data", small_folder, "--output", tmp_path, *FAST)
    assert code == 0
    assert "Weighted F1" in out
    (weights,) = tmp_path.glob("*.safetensors")
    (result,) = tmp_path.glob("*.result.json")
    code, out, _ = run(capsys, "evaluate", weights, "--data", small_folder, "--json")
    assert code == 0
    ours = json.loads(out)["weighted_f1"]
    assert ours == pytest.approx(json.loads(result.read_text())["metrics"]["test"]["weighted_f1"])
    code, out, _ = run(capsys, "evaluate", result, "--data", small_folder, "--split", "validation")
    assert code == 0
    assert "weighted f1" in out.lower()
    code, out, _ = run(capsys, "predict", weights, "--data", small_folder)
    assert code == 0
    assert out.splitlines()[0].split()[1] == "0"
    code, out, _ = run(capsys, "predict", weights, "--data", small_folder, "--output", tmp_path / "p.json")
    assert code == 0
    predicted = json.loads((tmp_path / "p.json").read_text())
    assert len(predicted) == 38


def test_compare_resumes_and_reports(capsys, small_folder, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"title: two\ndata: [{small_folder}]\nseeds: 2\nchange: {{training.epochs: 2}}\n"
        "models:\n  A: bilstm\n  B: {recipe: bilstm, change: {modalities: [text]}}\n"
    )
    command = ["compare", suite, "--output", tmp_path / "runs", "--workers", 1]
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert "ceiling" in out
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*.result.json")}
    assert len(files) == 4
    assert (
        "<svg" in (tmp_path / "runs/report.html").read_text()
        or "data:image" in (tmp_path / "runs/report.html").read_text()
    )
    assert len((tmp_path / "runs/summary.csv").read_text().splitlines()) == 1 + 4
    code, _, _ = run(capsys, *command, "--seeds", 3)
    assert code == 0
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*.result.json")}
    assert len(now) == 6
    assert {p: t for p, t in now.items() if p in files} == files


@pytest.mark.attack("H5")
def test_workers_compute_what_one_process_computes(capsys, small_folder, tmp_path):
    scores = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        code, _, _ = run(
            capsys, "compare", "context", "--models", "BiLSTM", "--seeds", 2, "--data", small_folder,
            "--output", folder, "--workers", workers, *FAST,
        )  # fmt: skip
        assert code == 0
        results = [json.loads(p.read_text()) for p in sorted(folder.glob("*.result.json"))]
        scores.append([(r["run"], r["metrics"]["test"]["confusion"]) for r in results])
    assert scores[0] == scores[1]


def test_a_broken_run_does_not_take_the_others_along(capsys, small_folder, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"title: one breaks\ndata: [{small_folder}]\nseeds: 1\nchange: {{training.epochs: 2}}\n"
        "models:\n  fine: bilstm\n  broken: {recipe: bilstm, change: {training.learning_rate: 1.0e+30}}\n"
    )
    code, out, err = run(capsys, "compare", suite, "--output", tmp_path / "runs", "--workers", 1)
    assert code == 1
    assert "fine" in out
    assert "broken, seed 0" in err
    assert "learning_rate" in err


MISTAKES = {
    "unknown command": (["tran"], "Did you mean 'train'"),
    "unknown option": (["train", "bilstm", "--sed", "1"], "Did you mean '--seed'"),
    "unknown recipe": (["train", "amb_dsgdm"], "Did you mean 'amb_dsgdn'"),
    "unknown dataset": (["train", "bilstm", "--data", "sinthetic"], "Did you mean 'synthetic'"),
    "unknown suite": (["compare", "defalt"], "Did you mean 'default'"),
    "unknown model of a suite": (["compare", "--models", "AMB-DSGD"], "Did you mean 'AMB-DSGDN'"),
    "no seeds": (["compare", "--seeds", "0"], "--seeds: must be greater than or equal to 1 (given: 0)"),
    "unknown kind": (["list", "fusoin"], "Did you mean 'fusion'"),
    "nothing matches": (["list", "fusion", "zzz*"], "nothing matches"),
    "typo in a setting": (["train", "amb_dsgdn", "-o", "model.context.encoder.dropot=0"], "Did you mean 'dropout'"),
    "typo in a stage": (["train", "amb_dsgdn", "-o", "model.contxt.encoder.dropout=0"], "Did you mean 'context'"),
    "typo in a section": (["train", "amb_dsgdn", "-o", "trainng.epochs=1"], "Did you mean 'training'"),
    "typo in training": (["train", "amb_dsgdn", "-o", "training.epoch=1"], "Did you mean 'epochs'"),
    "setting of the wrong type": (["train", "amb_dsgdn", "-o", "model.context.encoder.heads=four"], "valid integer"),
    "override without value": (["train", "amb_dsgdn", "-o", "training.epochs"], "want key=value"),
    "width of another dataset": (["train", "amb_dsgdn/iemocap"], "has width 32"),
    "missing file": (["import", "npz", "nowhere.npz"], "nowhere.npz"),
    "unknown layout": (["import", "nzp", "nowhere.npz"], "Did you mean 'npz'"),
    "missing model": (["evaluate", "nowhere.safetensors"], "no such file"),
    "missing parity file": (["parity", "nowhere.npz"], "no such file"),
    "no such device": (["train", "bilstm", "--device", "gpu"], "not a device"),
    "heads that do not divide": (["train", "amb_dsgdn", "-o", "model.context.encoder.heads=5"], "not divisible"),
    "typo in a modality": (["train", "amb_dsgdn", "-o", "model.gate.only=[txet]"], "Did you mean 'text'"),
    "another part's name": (["train", "amb_dsgdn", "-o", "loss=concat"], "'concat' is a part of another kind: fusion"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_message(capsys, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[mistake]
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert expected in err
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


def test_a_modality_the_data_lacks(capsys, shared_data, tmp_path):
    run(capsys, "import", "npz", shared_data("meld/meld_dev_text_audio.npz"), "--output", tmp_path / "meld")
    code, _, err = run(
        capsys, "train", "amb_dsgdn", "--data", tmp_path / "meld", "-o", "modalities=[text, audio, visual]"
    )
    assert code == 2
    assert "needs visual, but" in err


def test_a_recipe_file_is_answered_with_line_and_column(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("title: mine\nmodel:\n  join: {fusion: concta}\n  classify: {head: linear}\n")
    code, _, err = run(capsys, "train", path)
    assert code == 2
    assert "mine.yaml:3:" in err
    assert "no fusion named 'concta'. Did you mean 'concat'?" in err


def test_a_hostile_pickle_is_refused(capsys, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Hostile()))
    code, _, err = run(capsys, "import", "sdt-iemocap", tmp_path / "bad.pkl", "--output", tmp_path / "out")
    assert code == 2
    assert "open" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.pkl"]


def test_other_classes_are_noticed(capsys, small_folder, tmp_path):
    run(capsys, "train", "bilstm", "--data", small_folder, "--output", tmp_path, *FAST)
    np.savez(
        tmp_path / "other.npz", dialogue=np.array(["a", "a"]), turn=np.array([0, 1]), split=np.array(["test", "test"]),
        label=np.array([0, 1]), text=np.zeros((2, 3), np.float32), speaker=np.array(["x", "y"]),
    )  # fmt: skip
    code, _, _ = run(capsys, "import", "npz", tmp_path / "other.npz", "--output", tmp_path / "other")
    assert code == 0
    (weights,) = tmp_path.glob("*.safetensors")
    code, _, err = run(capsys, "evaluate", weights, "--data", tmp_path / "other")
    assert code == 2
    assert "knows the classes happy" in err


def test_validate_speaks_of_traps(capsys, shared_data, tmp_path):
    code, _, err = run(capsys, "import", "npz", shared_data("mosi/mosi.npz"), "--output", tmp_path / "mosi")
    assert code == 0
    assert "text features look fitted" in err
    code, out, _ = run(capsys, "validate", tmp_path / "mosi", "--json")
    assert code == 0
    assert "visual" in str(json.loads(out))


def test_parity_prints_and_judges(capsys, pytestconfig):
    code, out, _ = run(capsys, "parity", pytestconfig.rootpath / "tests/parity/dialoguegcn.npz")
    assert code == 0
    assert "passes" in out


def test_help_names_every_command(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    for name in ("train", "evaluate", "compare", "list", "describe", "validate", "import", "parity", "doctor"):
        assert name in out


def test_the_doctor_knows_the_extras_from_the_package_itself(capsys, tmp_path, monkeypatch):
    about = tmp_path / "mer_zoo-9.dist-info"
    about.mkdir()
    extras = {
        "here": "pyyaml>=1",
        "gone": "no-such-thing>=1",
        "old": "numpy>=999",
        "elsewhere": "no-such-thing; python_version<'3'",
        "all": "mer-zoo[here,gone,old]",
    }
    lines = ["Metadata-Version: 2.1", "Name: mer-zoo", "Version: 9", "Requires-Dist: no-such-base; python_version>'3'"]
    for extra, need in extras.items():
        need, _, marker = need.partition("; ")
        marker = f"{marker} and " if marker else ""
        lines += [f"Provides-Extra: {extra}", f"Requires-Dist: {need}; {marker}extra == '{extra}'"]
    (about / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = run(capsys, "doctor")
    assert code == 0, err
    told = dict(line[6:].split(": ", 1) for line in out.splitlines() if "extra " in line)
    assert list(told) == [f"extra {extra}" for extra in extras]
    assert told["extra here"] == told["extra elsewhere"] == "installed"
    assert told["extra gone"] == "without no-such-thing. If you want it: `pip install 'mer-zoo[gone]'`."
    assert told["extra old"].startswith("without numpy>=999 (there is ")
    assert told["extra all"].startswith("without no-such-thing, numpy>=999 (there is ")


def test_an_edited_part_is_trained_anew(capsys, small_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = (
        "import torch\n\n\nclass Mine(torch.nn.Module):\n    def __init__(self, widths: dict[str, int]) -> None:\n"
        "        super().__init__()\n        self.out_width = sum(widths.values())\n\n"
        "    def forward(self, states, dialogues):\n        return torch.cat(list(states.values()), -1) * 1.0\n"
    )
    command = ["compare", "context", "--models", "BiLSTM", "--data", small_folder, "--seeds", 1, "--output", "runs"]
    command += [*FAST, "--workers", 1, "-o", "model.join.fusion=./mine.py:Mine"]
    for text in (source, source, source.replace("1.0", "2.0")):
        (tmp_path / "mine.py").write_text(text)
        code, _, err = run(capsys, *command)
        assert code == 0, err
    assert len(list((tmp_path / "runs").glob("*.result.json"))) == 2


def test_features_can_be_made_from_transcripts(capsys, shared_data, tmp_path):
    run(capsys, "import", "npz", shared_data("meld/meld_dev_text_audio.npz"), "--output", tmp_path / "meld")
    code, out, _ = run(
        capsys, "extract", "hashed_words", tmp_path / "meld", "--output", tmp_path / "words", "-o", "out_width=64"
    )
    assert code == 0
    assert "text 64, audio 768" in out
    code, _, _ = run(capsys, "train", "bilstm", "--data", tmp_path / "words", "--output", tmp_path / "runs", *FAST)
    assert code == 0


def test_no_features_without_a_transcript(capsys, small_folder, tmp_path):
    code, _, err = run(capsys, "extract", "hashed_words", small_folder, "--output", tmp_path / "words")
    assert code == 2
    assert "has no transcript" in err
    assert not (tmp_path / "words").exists()


@pytest.mark.skipif(os.name != "posix", reason="pipes that break")
def test_a_comparison_that_nobody_reads_writes_its_files(small_folder, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"title: t\ndata: ['{small_folder}']\nmodels: [majority]\nseeds: 1\n")
    command = [sys.executable, "-m", "mer_zoo", "compare", str(suite), "--output", str(tmp_path)]
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (ended.returncode, "sys.exit" in ended.stderr) == (0, False), ended.stderr
    assert (tmp_path / "report.html").is_file()
