"""Commands, suites and recipes under attack: one message, exit code 2, nothing half-written, nothing interpreted."""

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mer_zoo import registry
from mer_zoo.cli import COMMANDS, main
from mer_zoo.commands import terminal
from mer_zoo.comparison import suite as suites
from mer_zoo.data.container import write_dataset
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe
from mer_zoo.model.plan import Plan
from mer_zoo.training import experiment as experiments

LONG = "n" * 5000


def run(capsys, *arguments):
    """Return exit code, standard output and standard error of a command."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def no_training(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("training began")

    monkeypatch.setattr(experiments.loop, "train", never)


MISTAKES = {
    "a negative seed": (["train", "bilstm", "--seed", "-1"], "seed -1: want a whole number"),
    "a huge seed": (["train", "bilstm", "--seed", str(2**70)], "want a whole number"),
    "an unknown device": (["train", "bilstm", "--device", "mps"], "device 'mps'"),
    "a device without values": (["compare", "context", "--device", "meta"], "device 'meta'"),
    "a fold of data without folds": (["train", "bilstm", "--fold", "0"], "has no folds"),
    "a window backwards": (["train", "dialoguegcn", "-o", "graph.past=-5"], "want 0 or more of each"),
    "a window beyond native numbers": (["train", "dialoguegcn", "-o", f"graph.past={10**20}"], "is out of range"),
    "a width beyond any memory": (["train", "bilstm", "-o", "model.context.encoder.hidden=2000000000"], "bilstm"),
    "an alias of itself": (["train", "bilstm", "-o", "training.epochs=&a [*a]"], "-o training.epochs"),
    "half a list": (["train", "bilstm", "-o", "training.epochs=[1"], "is not valid YAML"),
    "half a list, compared": (["compare", "context", "-o", "training.epochs=[1"], "is not valid YAML"),
    "half a list, extracted": (
        ["extract", "hashed_words", "synthetic", "--output", "x", "-o", "out_width=[1"],
        "is not valid YAML",
    ),
    "a value without a key": (["compare", "context", "-o", "=1"], "want key=value"),
    "an unknown key, compared": (["compare", "context", "-o", "trainng.epochs=1"], "Did you mean 'training'"),
    "no model": (["compare", "--models", ""], "nothing fits ''"),
    "no seeds": (["compare", "--seeds", "-3"], "--seeds"),
    "seeds without end": (["compare", "--seeds", "1000000000000"], "less than or equal to 1000"),
    "no workers": (["compare", "context", "--data", "synthetic", "--workers", "0"], "want at least 1"),
    "data twice": (["compare", "context", "--data", "synthetic", "--data", "synthetic"], "is there twice"),
    "a modality twice": (["train", "bilstm", "-o", "modalities=[text, text]"], "'text' is there twice"),
    "no such modality": (["train", "bilstm", "-o", "modalities=[smell]"], "needs smell"),
    "true for a number": (["train", "bilstm", "-o", "training.epochs=true"], "must be a valid integer (given: true)"),
    "epochs without end": (["train", "bilstm", "-o", f"training.epochs={10**20}"], "less than or equal to 100000"),
    "an infinite step": (["train", "bilstm", "-o", "training.learning_rate=.inf"], "training.learning_rate"),
    "contributions of a learner": (["train", "majority", "--contributions"], "a learner has no epochs"),
    "contributions of one modality": (
        ["train", "bilstm", "--contributions", "-o", "modalities=[text]"],
        "text is its only modality",
    ),
    "an unknown tag": (["list", "fusion", "--tag", "zzz"], "no part has this tag"),
    "a tag of recipes": (["list", "recipe", "--tag", "zzz"], "only parts have tags"),
    "a long recipe": (["train", LONG], "no recipe named"),
    "a long recipe file": (["train", f"{LONG}.yaml"], "no such file"),
    "a long suite": (["compare", LONG], "no suite named"),
    "a long suite file": (["compare", f"{LONG}.yaml"], "cannot be read"),
    "a long override": (["train", "bilstm", "-o", f"{LONG}={LONG}"], "unknown key"),
    "a long part": (["describe", f"fusion/{LONG}"], "no fusion named"),
    "a long model": (["evaluate", f"{LONG}.safetensors"], ""),
    "a long kind": (["list", LONG], "no kind of part"),
    "a long command": ([LONG], "no command"),
    "a function for data": (["train", "bilstm", "--data", "os:getcwd"], "not a dataset"),
    "a mapping for a part": (
        ["train", "bilstm", "-o", "model.context.encoder=collections:OrderedDict"],
        "collections:OrderedDict",
    ),
    "any class for a loss": (["train", "bilstm", "-o", "loss=fractions:Fraction"], "loss"),
    "any class for a graph": (["train", "mmgcn", "-o", "graph=fractions:Fraction"], "graph"),
    "a part that is not there": (["describe", "fusion/./nowhere.py:Mine"], "no such file"),
    "a check without a kind": (["check", "gated"], "no kind of part"),
    "an unknown split": (["evaluate", "x.safetensors", "--split", "tets"], "Did you mean 'test'"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.attack("B11", "C1", "C2", "C3", "C4", "C6", "C10", "C11", "C12", "C27", "C28", "D13", "D16")
def test_a_mistake_gets_one_message(capsys, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[mistake]
    code, out, err = run(capsys, *arguments)
    assert (code, "Traceback" in out + err) == (2, False), err
    assert expected in err
    assert "unexpected" not in err
    assert "`-o modalities=[]`" not in err
    assert max(map(len, err.splitlines())) < 3 * 5200
    assert [path for path in tmp_path.iterdir() if path.name != "runs"] == []


SUITES = {
    "no models": ("title: t\ndata: [synthetic]\nmodels: {}\n", ":3:1 models"),
    "no data": ("title: t\ndata: []\nmodels: {A: bilstm}\n", ":2:1 data"),
    "no seeds": ("title: t\ndata: [synthetic]\nmodels: {A: bilstm}\nseeds: []\n", ":4:1 seeds"),
    "a seed twice": ("title: t\ndata: [synthetic]\nmodels: {A: bilstm}\nseeds: [0, 0]\n", "0 is there twice"),
    "a negative seed": ("title: t\ndata: [synthetic]\nmodels: {A: bilstm}\nseeds: [-1]\n", ":4:9 seeds.0"),
    "seeds without end": ("title: t\ndata: [synthetic]\nmodels: {A: bilstm}\nseeds: 1000000000000\n", "to 1000"),
    "true for seeds": ("title: t\ndata: [synthetic]\nmodels: {A: bilstm}\nseeds: true\n", "valid integer"),
    "data without a name": ("title: t\ndata: [{seed: 1}]\nmodels: {A: bilstm}\n", "has no name"),
    "a list": ("- 1\n", "must be a mapping"),
    "nothing": ("", "must be a mapping"),
    "a key misspelt": ("title: t\nmodles: {}\ndata: [synthetic]\n", ":2:1 modles: unknown key. Did you mean 'models'?"),
    "a key of a model misspelt": (
        "title: t\ndata: [synthetic]\nmodels:\n  A: {recipe: bilstm, chnage: {}}\n",
        ":4:23 models.A.chnage: unknown key. Did you mean 'change'?",
    ),
    "a long name": (f"title: t\ndata: [synthetic]\nmodels: {{{LONG[:900]}: bilstm}}\n", "at most 200 characters"),
    "a change of all that is wrong": (
        "title: t\ndata: [synthetic]\nmodels: {A: bilstm}\nchange:\n  training.epochs: -1\n",
        ":5:3 change training.epochs: must be greater than 0",
    ),
    "a change of one that is wrong": (
        "title: t\ndata: [synthetic]\nmodels:\n  A: {recipe: bilstm, change: {trainng.epochs: 1}}\n",
        ":4:32 models.A.change trainng.epochs: a recipe has no 'trainng'. Did you mean 'training'?",
    ),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("mistake", SUITES)
@pytest.mark.attack("B10", "C1", "C13", "C14", "C28", "D12")
def test_a_suite_that_cannot_be_used(capsys, tmp_path, mistake):
    text, expected = SUITES[mistake]
    (tmp_path / "s.yaml").write_text(text)
    code, _, err = run(capsys, "compare", tmp_path / "s.yaml", "--output", tmp_path / "runs")
    assert code == 2
    assert expected in err
    assert " -o " not in err
    for word in ("[key]", "constrained", "dict[", "list[", "literal[", "function-", "instance of"):
        assert word not in err
    assert not (tmp_path / "runs").exists()


END = "  join: {fusion: concat}\n  classify: {head: linear}\n"
RECIPES = {
    "a stage with a dot": (f"title: t\nmodel:\n  a.b: {{encoder: norm}}\n{END}", ":3:3 model.a.b: 'a.b' is not a name"),
    "a stage without a name": (f"title: t\nmodel:\n  '': {{encoder: norm}}\n{END}", "'' is not a name"),
    "a stage that torch could not name": (f"title: t\nmodel:\n  pop: {{encoder: norm}}\n{END}", "the name 'pop'"),
    "a stage with a long name": (f"title: t\nmodel:\n  {LONG[:1000]}: {{encoder: norm}}\n{END}", "is not a name"),
    "a modality with a dot": (f"title: t\nmodalities: [a.b]\nmodel:\n{END}", ":2:14 modalities.0: 'a.b' is not a name"),
    "a modality of Python's": (f"title: t\nmodalities: {{__class__: 3}}\nmodel:\n{END}", "'__class__' is not a name"),
    "a key misspelt": (f"title: t\nmodle: {{}}\nmodel:\n{END}", ":2:1 modle: unknown key. Did you mean 'model'?"),
    "a key of a stage misspelt": (
        f"title: t\nmodel:\n  a: {{encoder: norm, shraed: true}}\n{END}",
        ":3:22 model.a.shraed: unknown key. Did you mean 'shared'?",
    ),
    "a key of training misspelt": (
        f"title: t\nmodel:\n{END}training: {{epoch: 3}}\n",
        ":5:12 training.epoch: unknown key. Did you mean 'epochs'?",
    ),
    "a key of a score misspelt": (
        f"title: t\nmodel:\n{END}published:\n"
        "  - {metrc: b, metric: b, dataset: a, value: 1, where: c, selected_on: test}\n",
        ":6:6 published.0.metrc: unknown key. Did you mean 'metric'?",
    ),
    "modalities of a wrong type": (
        f"title: t\nmodalities: 5\nmodel:\n{END}",
        ":2:1 modalities: must be 'all', or",
    ),
    "no modality a number": (
        f"title: t\nmodalities: [1]\nmodel:\n{END}",
        ":2:14 modalities.0: must be text",
    ),
    "a stage of a wrong type": (f"title: t\nmodel:\n  a: 5\n{END}", ":3:3 model.a: must be a mapping (given: 5)"),
    "an infinite step": (f"title: t\nmodel:\n{END}training: {{clip: .inf}}\n", ":5:12 training.clip: must be a finite"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("mistake", RECIPES)
@pytest.mark.attack("C7", "C8")
def test_a_recipe_that_cannot_be_used(capsys, tmp_path, mistake):
    text, expected = RECIPES[mistake]
    (tmp_path / "r.yaml").write_text(text)
    suite = f"title: t\ndata: [synthetic]\nmodels: {{A: {tmp_path}/r.yaml}}\n"
    (tmp_path / "s.yaml").write_text(suite)
    code, _, err = run(capsys, "compare", tmp_path / "s.yaml", "--output", tmp_path / "runs")
    assert code == 2
    assert expected in err
    for word in ("[key]", "constrained", "dict[", "list[", "literal[", "function-", "instance of"):
        assert word not in err


def test_a_plan_is_as_strict_as_a_recipe(small):
    plain = filling.fill(recipe.read("bilstm"), small.widths).plain()
    plain["model"] = {"a.b" if name == "join" else name: stage for name, stage in plain["model"].items()}
    with pytest.raises(ValueError, match="is not a name"):
        Plan.model_validate(plain)


@pytest.mark.attack("C9")
def test_recipes_that_extend_one_another_without_end(tmp_path):
    for number in range(1200):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(MerZooError, match="more than 16 recipes extend one another"):
        recipe.read(f"{tmp_path}/0.yaml")


@pytest.mark.attack("D14")
def test_a_folder_is_no_recipe_and_no_suite(capsys, tmp_path):
    (tmp_path / "x.yaml").mkdir()
    for command in ("train", "compare"):
        code, _, err = run(capsys, command, tmp_path / "x.yaml")
        assert code == 2
        assert "a folder, not a file" in err


def test_what_the_command_line_changes_goes_before_the_suite(tmp_path):
    plan = {"title": "t", "data": ["synthetic"], "seeds": 1, "change": {"training.epochs": 7, "training.patience": 3}}
    plan["models"] = {"A": {"recipe": "bilstm", "change": {"training.epochs": 8}}, "B": "bilstm"}
    first, second = suites.experiments(suites.checked(plan), changes=["training.patience=5"])
    assert (first.plan.training.epochs, first.plan.training.patience) == (8, 5)
    assert (second.plan.training.epochs, second.plan.training.patience) == (7, 5)


@pytest.mark.parametrize("kind_and_setting", ["dag.turns", "k_nearest.k"])
@pytest.mark.parametrize("value", [-5, 0])
def test_no_graph_takes_a_number_that_means_nothing(kind_and_setting, value):
    name, setting = kind_and_setting.split(".")
    with pytest.raises(MerZooError, match=setting):
        registry.build(registry.find("graph", name), {setting: value}, {"node_types": ("text",), "speakers": 2})


# -- what is printed


HOSTILE = "x[/bold][red]:smile:\x1b]0;owned\x07\x9b31m"


@pytest.fixture
def hostile_folder(small, tmp_path):
    """Return a dataset whose name and dialogues are made to be interpreted."""
    from dataclasses import replace

    renamed = {one.id: f"{one.id}{HOSTILE}" for one in small}
    splits = {part: tuple(renamed[name] for name in ids) for part, ids in small.splits.items()}
    dialogues = tuple(replace(one, id=renamed[one.id]) for one in small)
    labels = tuple(f"{name}[/]" for name in small.label_names)
    return write_dataset(Dataset(HOSTILE, dialogues, labels, splits), tmp_path / "hostile[red]")


def sound(text):
    """Whether a text has no control character but new lines."""
    return all(c.isprintable() or c in "\n\t" for c in text)


@pytest.mark.attack("C15", "D6")
def test_names_are_shown_not_interpreted(capsys, hostile_folder, tmp_path):
    suite = {"title": "t[/x]", "data": [str(hostile_folder)], "models": {"m[/x]": "bilstm"}, "seeds": 1}
    (tmp_path / "s.yaml").write_text(json.dumps(suite | {"change": {"training.epochs": 1}}))
    output = tmp_path / "runs[red]"
    output.mkdir()
    (output / "bad[red].result.json").write_text("{")
    code, out, err = run(capsys, "compare", tmp_path / "s.yaml", "--output", output, "--keep-weights", "--workers", 1)
    assert code == 0, err
    assert "t[/x]" in out
    assert "m[/x]" in out
    assert "runs[red]" in out.replace("\n", "")
    assert "bad[red].result.json.damaged" in err.replace("\n", "")
    assert sound(out + err)
    (weights,) = output.glob("*.safetensors")
    for command in (["predict", weights], ["evaluate", weights], ["validate"]):
        code, out, err = run(capsys, *command, *(["--data"] if len(command) == 2 else []), hostile_folder)
        assert code == 0, err
        assert sound(out + err)
        assert "[/" in out
        assert "☺" not in out
        assert "😄" not in out


def test_messages_and_warnings_show_control_characters(capsys):
    code, _, err = run(capsys, "train", "bi\x1b[31mlstm")
    assert code == 2
    assert "bi\\x1b[31mlstm" in err
    assert sound(err)
    code, _, err = run(capsys, "tra\x1b[31min")
    assert code == 2
    assert sound(err)
    with terminal.prepared():
        warnings.warn("a\x1bb")
    assert "warning: a\\x1bb" in capsys.readouterr().err


def test_the_callers_warnings_are_as_before(capsys):
    shown, filters = warnings.showwarning, list(warnings.filters)
    run(capsys, "list", "fusion")
    run(capsys, "list", "no_such_kind")
    assert warnings.showwarning is shown
    assert warnings.filters == filters


EACH = "import json, sys; from mer_zoo.cli import main; print([main(words) for words in json.loads(sys.argv[1])])"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.attack("C23")
def test_any_terminal_shows_any_text(encoding, small, tmp_path):
    labels = tuple(f"{name}é→字" for name in small.label_names)
    folder = write_dataset(Dataset("日本→", small.conversations, labels, small.splits), tmp_path / "data")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "COLUMNS": "60"}
    arguments = ["train", "bilstm", "--data", folder, "--output", tmp_path / "runs", "-o", "training.epochs=1"]
    commands = [arguments, ["validate", folder], ["describe", "layer/rgcn"], ["list"], ["train", "→"]]
    command = [sys.executable, "-c", EACH, json.dumps(commands, default=str)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    said = done.stderr.decode(encoding)
    assert "Traceback" not in said
    assert done.returncode == 0, said
    assert done.stdout.decode(encoding).splitlines()[-1] == "[0, 0, 0, 0, 2]", said


def test_signs_of_our_own_have_stand_ins():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="mer_zoo")
    stream.write("a → b ± 0.1 × 2 – 字")
    stream.flush()
    assert stream.buffer.getvalue() == b"a -> b +- 0.1 x 2 - \\u5b57"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.attack("C24")
def test_standard_output_on_a_full_device():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mer_zoo", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "mer-zoo list: standard output: No space left on device.\n"


@pytest.mark.attack("B12")
def test_predictions_do_not_replace_a_file(capsys, small_folder, tmp_path):
    train = ["train", "bilstm", "--data", small_folder, "--output", tmp_path / "runs", "-o", "training.epochs=1"]
    assert run(capsys, *train)[0] == 0
    (weights,) = (tmp_path / "runs").glob("*.safetensors")
    (tmp_path / "mine.json").write_text("mine")
    command = ["predict", weights, "--data", small_folder, "--output"]
    code, _, err = run(capsys, *command, tmp_path / "mine.json")
    assert code == 2
    assert "exists already" in err
    assert (tmp_path / "mine.json").read_text() == "mine"
    assert run(capsys, *command, tmp_path / "new.json")[0] == 0
    assert run(capsys, *command, tmp_path / "mine.json/below")[0] == 2


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (["train", "bilstm"], "its last checkpoint, if it came to one, is kept"),
        (["compare", "context"], "finished results are kept; run it again"),
        (["validate", "synthetic"], "nothing is left half-written"),
    ],
)
@pytest.mark.attack("D11")
def test_ctrl_c_says_what_is_true(capsys, monkeypatch, command, left):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mer_zoo.data.loading.load", stop)
    monkeypatch.setattr("mer_zoo.training.experiment.load", stop)
    code, _, err = run(capsys, *command)
    assert code == 130
    assert left in err


@pytest.mark.parametrize("where", ["when imported", "when made", "when run"])
@pytest.mark.attack("C26")
def test_a_part_that_ends_the_program(capsys, tmp_path, small_folder, where):
    text = "import sys\nfrom torch import nn\n\nclass Mine(nn.Module):\n    def __init__(self, width: int) -> None:\n"
    text += "        super().__init__()\n        self.out_width = width\n"
    text += "    def forward(self, x, dialogues):\n        sys.exit(0)\n" if where == "when run" else ""
    text = text.replace("        super", "        sys.exit(0)\n        super") if where == "when made" else text
    (tmp_path / "mine.py").write_text("raise SystemExit(0)\n" if where == "when imported" else text)
    part = f"{tmp_path}/mine.py:Mine"
    code, _, err = run(capsys, "check", f"encoder/{part}")
    assert code == 2
    assert err
    code, _, err = run(capsys, "train", "bilstm", "--data", small_folder, "-o", f"model.context.encoder={part}")
    assert code == 2
    assert err


def test_an_unexpected_failure_is_one_line_unless_asked(capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("odd")

    monkeypatch.setattr(registry, "cards", broken)
    code, out, err = run(capsys, "list")
    assert (code, out) == (1, "")
    assert err.startswith("mer-zoo list: unexpected RuntimeError: odd.")
    assert err.count("\n") == 1
    code, _, err = run(capsys, "list", "--traceback")
    assert code == 1
    assert "Traceback" in err


# -- the table of commands


def test_every_command_has_its_file():
    folder = Path(sys.modules["mer_zoo.commands"].__file__).parent
    shared = {"__init__", "terminal", "progress", "running"}
    assert {path.stem.rstrip("_") for path in folder.glob("*.py") if path.stem not in shared} == set(COMMANDS)
    for module in COMMANDS.values():
        assert module.run.__doc__.splitlines()[0].endswith(".")


@pytest.mark.attack("D20")
def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "mer_zoo", "list", "fusion", "concat"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "fusion/concat  Modalities side by side.\n")


def test_the_parser_imports_nothing_heavy():
    code = "import sys; from mer_zoo import cli; cli._parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "dgl", "numpy", "pydantic", "rich"} & set(done.stdout.split())
