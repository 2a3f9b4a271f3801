"""A plugin package written outside the repository is listed, checked and run; broken ones stay with the doctor."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mer_zoo import registry
from mer_zoo.checking import check_part
from mer_zoo.checking.small_data import WIDTHS, conversations
from mer_zoo.commands.new import new
from mer_zoo.corpus import Corpus
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts

ROOT = Path(__file__).parent.parent
PARTS = {"fusion": "Blend", "graph": "Chain", "balancing": "Noise"}


def package(folder: Path, name: str = "acme_mer", point: str = "acme") -> Path:
    """Write a plugin package from the templates, with cards as package data and an entry point."""
    home = folder / "project"
    code = home / name
    for kind, cls in PARTS.items():
        new(kind, cls.lower(), folder / "drafts")
        code.mkdir(parents=True, exist_ok=True)
        (code / f"{cls.lower()}.py").write_text((folder / "drafts" / f"{cls.lower()}.py").read_text())
        card = (folder / "drafts" / f"{cls.lower()}.yaml").read_text()
        (code / "cards" / kind).mkdir(parents=True)
        text = card.replace(f"{cls.lower()}.py:", f"{name}.{cls.lower()}:").replace("tags: []", "tags: [ours]")
        (code / "cards" / kind / f"{cls.lower()}.yaml").write_text(text)
    (code / "__init__.py").write_text("")
    (home / "pyproject.toml").write_text(
        textwrap.dedent(
            f"""
            [build-system]
            requires = ["setuptools"]
            build-backend = "setuptools.build_meta"
            [project]
            name = "{name.replace("_", "-")}"
            version = "1.0"
            [project.entry-points."mer_zoo.cards"]
            {point} = "{name}:cards"
            [tool.setuptools]
            packages = ["{name}"]
            [tool.setuptools.package-data]
            {name} = ["cards/*/*.yaml"]
            """
        )
    )
    return home


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return a folder that the plugin is installed into by pip."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("plugin")
    target = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", target, package(folder)], check=True, capture_output=True)
    return target


def run(site: Path, code: str, **variables: str) -> str:
    """Run Python with the plugin installed; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "OMP_NUM_THREADS": "1", **variables},
        cwd=site,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


RECIPE = {
    "title": "with parts from elsewhere",
    "graph": "{graph}",
    "model": {
        "project": {"encoder": {"name": "linear", "out_width": 8}},
        "pass": {"layer": {"name": "graph_conv", "out_width": 8}},
        "join": {"fusion": {"name": "{fusion}", "out_width": 4}},
        "classify": {"head": "linear"},
    },
    "balancing": "{balancing}",
}


def written(folder: Path, names: dict[str, str]) -> Path:
    """Write a recipe that uses these parts."""
    text = json.dumps(RECIPE)
    for kind, name in names.items():
        text = text.replace(f"{{{kind}}}", name)
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def one_step(path: Path) -> None:
    """Assemble the recipe, which rehearses a training step, and run it on a batch."""
    filled = filling.fill(recipe.read(str(path)), WIDTHS)
    model = assemble(filled, Facts(WIDTHS, 3, 6, (1,) * 6))
    dialogues = conversations([5, 3])
    output = model(Corpus(dialogues, model.builder, model.views).batch([0, 1]))
    assert output.logits.shape == (8, 6)


CHECK_AND_STEP = """
    from mer_zoo.checking import check_part
    from mer_zoo.commands.describe import describe
    for kind, name in {names!r}.items():
        print(len(check_part(kind, name)) > 5, describe(f"{{kind}}/{{name}}").data["settings"])

    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import test_plugins
    test_plugins.one_step(test_plugins.written(Path({folder!r}), {names!r}))
    print("stepped")
"""


def test_it_is_listed_without_being_imported(site):
    out = run(
        site,
        """
        import sys
        from mer_zoo import registry
        print([card.id for card in registry.cards(tag="ours")])
        print(registry.find("fusion", "acme/blend").target, registry.plugin_faults())
        print([name for name in sys.modules if name.startswith(("acme", "torch", "dgl"))])
        """,
    )
    assert out.splitlines() == [
        "['graph/acme/chain', 'fusion/acme/blend', 'balancing/acme/noise']",
        "acme_mer.blend:Blend ()",
        "[]",
    ]


def test_it_passes_check_is_described_and_runs_in_a_recipe(site, tmp_path):
    names = {kind: f"acme/{cls.lower()}" for kind, cls in PARTS.items()}
    out = run(site, CHECK_AND_STEP.format(tests=str(ROOT / "tests"), folder=str(tmp_path), names=names))
    assert out.splitlines() == [
        "True {'out_width': {'type': 'int', 'default': 64, 'meaning': 'width of the result.'}}",
        "True {'past': {'type': 'int', 'default': 5, 'meaning': 'turns to look back, at least 0.'}}",
        "True {'spread': {'type': 'float', 'default': 0.1, 'meaning': '$\\\\sigma$, at least 0.'}}",
        "stepped",
    ]


def test_the_same_parts_by_file(tmp_path):
    names = {}
    for kind, cls in PARTS.items():
        new(kind, cls.lower(), tmp_path)
        names[kind] = f"{tmp_path}/{cls.lower()}.py:{cls}"
        check_part(kind, names[kind])
    one_step(written(tmp_path, names))


def test_the_same_parts_by_register(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.lookup, "_registered", {})
    names = {}
    for kind, cls in PARTS.items():
        new(kind, cls.lower(), tmp_path)
        card = registry.Card(kind, "x", f"{tmp_path}/{cls.lower()}.py:{cls}")
        names[kind] = registry.register(kind, registry.load(card), f"session_{cls.lower()}").name
        assert names[kind] in [c.name for c in registry.cards(kind)]
        check_part(kind, names[kind])
    one_step(written(tmp_path, names))


def installed(folder: Path, name: str, value: str, files: dict[str, str]) -> None:
    """Put a package with an entry point into a folder, as pip leaves it."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mer_zoo.cards]\n{name} = {value}\n")


def test_broken_plugins_show_with_the_doctor_only(tmp_path):
    good = 'target: fine.part:Part\nsummary: "Good."\npaper: null\n'
    installed(tmp_path, "gone", "gone:cards", {})
    installed(tmp_path, "hollow", "hollow:cards", {"hollow/__init__.py": ""})
    installed(tmp_path, "barren", "barren:cards", {"barren/__init__.py": "", "barren/cards/note.txt": ""})
    bad = "target: nowhere\nsumary: x\npromises: [casual]\n"
    cards = {"fine/cards/fusion/good.yaml": good, "fine/cards/fusion/bad.yaml": bad}
    crash = 'target: fine.crash:Part\nsummary: "Bad."\npaper: null\n'
    files = {"fine/__init__.py": "", "fine/crash.py": "1 / 0\n", "fine/cards/fusion/crash.yaml": crash}
    installed(tmp_path, "fine", "fine:cards", {**cards, **files})
    out = run(
        tmp_path,
        """
        import mer_zoo
        from mer_zoo import registry
        from mer_zoo.commands.doctor import diagnose
        from mer_zoo.errors import MerZooError
        print([c.name for c in registry.cards("fusion", "*/*")])
        for name in ("fine/bad", "fine/crash"):
            try:
                registry.load(registry.find("fusion", name))
            except MerZooError as error:
                print(error)
        print("--")
        for finding in diagnose():
            if not finding.fine:
                print(finding)
        """,
    ).replace(str(tmp_path), "SITE")
    before, after = out.split("--\n")
    assert before.splitlines() == [
        "['fine/crash', 'fine/good']",
        "the card of fusion 'fine/bad' is broken.",
        "SITE/fine/cards/fusion/bad.yaml:1:1 'summary' is missing. Add it.",
        "SITE/fine/cards/fusion/bad.yaml:1:1 'paper' is missing. Add it (null if there is none).",
        "SITE/fine/cards/fusion/bad.yaml:1:1 target: want 'module:Class' or 'file.py:Class', not 'nowhere'.",
        "SITE/fine/cards/fusion/bad.yaml:2:1 unknown key 'sumary'. Did you mean 'summary'?",
        "SITE/fine/cards/fusion/bad.yaml:3:1 no promise named 'casual'. Did you mean 'causal'?",
        "fusion/fine/crash: importing 'fine.crash' fails: ZeroDivisionError: division by zero (SITE/fine/crash.py:1)",
    ]
    for fault in (
        "package 'gone' is not importable. Reinstall the plugin.",
        "card folder SITE/hollow/cards is missing. Ship it as package data.",
        "plugin 'barren': no cards in SITE/barren/cards.",
        "plugin card fusion/fine/bad: SITE/fine/cards/fusion/bad.yaml:1:1 'summary' is missing.",
        "fusion/fine/crash: importing 'fine.crash' fails: ZeroDivisionError: division by zero (SITE/fine/crash.py:1)",
    ):
        assert fault in after
