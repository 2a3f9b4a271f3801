"""The command line. Heavy modules are imported by the command that needs them, so that `list` answers at once."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mer_zoo import __version__
from mer_zoo.errors import MerZooError, nearest


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are ours: one message with the nearest match, exit code 2."""

    def error(self, message: str) -> Any:
        if "invalid choice: '" in message:
            wrong = message.split("invalid choice: '")[1].split("'")[0]
            message = f"no command '{wrong}'.{nearest(wrong, COMMANDS)}"
        elif message.startswith("unrecognized arguments: "):
            wrong = message.removeprefix("unrecognized arguments: ").split()[0]
            options = [text for action in self._actions for text in action.option_strings]
            message = f"unknown argument '{wrong}'.{nearest(wrong, options)}"
        self.exit(2, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 fine, 1 something did not pass, 2 the input cannot be used.

    Example:
        >>> main(["list", "fusion", "concat"])
        fusion/concat  Modalities side by side.
        0
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        chosen = parser
        if options.command:
            chosen = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[
                options.command
            ]
        chosen.error(f"unrecognized arguments: {' '.join(rest)}")
    if not options.command:
        parser.print_help()
        return 0
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        return COMMANDS[options.command][0](options) or 0
    except MerZooError as error:
        print(f"mer-zoo {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `mer-zoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"mer-zoo {options.command}: stopped; finished results are kept, run it again to go on.", file=sys.stderr)
        return 130


def _parser() -> _Parser:
    parser = _Parser(prog="mer-zoo", description="Multimodal emotion recognition in conversation: models, compared.")
    parser.add_argument("--version", action="version", version=f"mer-zoo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (_, summary, add) in COMMANDS.items():
        add(commands.add_parser(name, help=summary, description=summary))
    return parser


def _running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", metavar="DIR", type=Path, default=Path("runs"), help="result folder (runs)")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")
    command.add_argument("-o", "--override", metavar="KEY=VALUE", action="append", default=[], help="change the recipe")
    command.add_argument("--precision", default="float32", help="float32, tf32 or bf16 (float32)")
    command.add_argument(
        "--capture", action=argparse.BooleanOptionalAction, help="record steps as CUDA graphs (on GPUs)"
    )
    command.add_argument("--compile", action="store_true", help="fuse captured steps; one to two minutes per shape")
    command.add_argument("--deterministic", action="store_true", help="bitwise equal runs, at a price")


def _options(options: argparse.Namespace) -> Any:
    from mer_zoo.training.options import ComputeOptions

    stack = getattr(options, "stack", None)
    return ComputeOptions(options.precision, options.capture, options.compile, options.deterministic, stack)


def _list_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", nargs="?", help="kind of part, recipe or suite; or a pattern")
    command.add_argument("pattern", nargs="?", default="*", help="wildcard on the name")
    command.add_argument("--tag", help="only parts with this tag")
    command.add_argument("--json", action="store_true", help="machine-readable")


def _list(options: argparse.Namespace) -> None:
    import fnmatch

    from mer_zoo import registry

    if options.kind is not None and "*" in options.kind:  # `list "*gat*"`: a pattern over all kinds
        options.kind, options.pattern = None, options.kind
    rows: list[tuple[str, str]] = []
    if options.kind in ("recipe", "suite"):
        from mer_zoo.comparison import suite
        from mer_zoo.model import recipe

        source = recipe if options.kind == "recipe" else suite
        rows = [(f"{options.kind}/{n}", source.title(n)) for n in source.names() if fnmatch.fnmatch(n, options.pattern)]
    else:
        if options.kind is not None and options.kind not in registry.KINDS:
            known = nearest(options.kind, [*registry.KINDS, "recipe", "suite"])
            raise MerZooError(f"no kind of part named '{options.kind}'.{known}")
        found = registry.cards(options.kind, options.pattern, options.tag)
        if options.json:
            from dataclasses import asdict

            print(json.dumps([asdict(card) for card in found], indent=1))
            return
        rows = [(card.id, card.summary) for card in found]
    if options.json:
        print(json.dumps([{"id": name, "summary": summary} for name, summary in rows], indent=1))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        print(f"{name:<{width}}  {summary}")
    if not rows:
        raise MerZooError(f"nothing matches '{options.pattern}'. `mer-zoo list` shows everything.")


def _describe_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("part", metavar="KIND/NAME", help="such as fusion/gated, or recipe/amb_dsgdn")


def _describe(options: argparse.Namespace) -> None:
    from rich.console import Console

    from mer_zoo.commands.describe import describe

    Console().print(describe(options.part))


def _check_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("part", metavar="KIND/NAME", help="a name, module:Class or ./file.py:Class behind the kind")
    command.add_argument("--only", metavar="PATTERN", default="*", help="a wildcard on the names of the checks")
    command.add_argument("--list", action="store_true", help="list the names of the checks instead")


def _check(options: argparse.Namespace) -> None:
    from mer_zoo import registry
    from mer_zoo.checking import check_names, check_part

    kind, name = registry.split(options.part)
    if options.list:
        print(*check_names(kind, name), sep="\n")
        return
    for finding in check_part(kind, name, only=options.only):
        print(finding)
    print(f"{options.part}: passes.")


def _new_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", help="kind of part")
    command.add_argument("name", help="its name, snake_case")
    command.add_argument("--output", metavar="DIR", type=Path, default=Path(), help="where to write (here)")


def _new(options: argparse.Namespace) -> None:
    from mer_zoo.commands.new import new

    for path in new(options.kind, options.name, options.output):
        print(path)


def _doctor(options: argparse.Namespace) -> int:
    from mer_zoo.commands.doctor import diagnose

    findings = diagnose()
    for finding in findings:
        print(finding)
    return int(any(not finding.fine for finding in findings))


def _data_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", metavar="DATA", help="a dataset's name, or a folder that `import` made")
    command.add_argument("--json", action="store_true", help="machine-readable")


def _validate(options: argparse.Namespace) -> None:
    from rich.console import Console

    from mer_zoo.data.loading import load
    from mer_zoo.data.validation import describe_dataset, render_report

    report = describe_dataset(load(options.data))
    if options.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        Console().print(render_report(report))


def _import_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("layout", metavar="LAYOUT", help="npz, mmgcn-iemocap, mmgcn-meld, sdt-iemocap or sdt-meld")
    command.add_argument("file", metavar="FILE", type=Path, help="the feature file")
    command.add_argument("--output", metavar="FOLDER", type=Path, help="container to write (the file's stem)")
    command.add_argument("--name", help="what reports call the dataset (the file's stem)")


def _import(options: argparse.Namespace) -> None:
    from mer_zoo.data.container import write_dataset
    from mer_zoo.data.importing import import_dataset

    dataset = import_dataset(options.layout, options.file, options.name)
    folder = write_dataset(dataset, options.output or Path(options.file.stem))
    count = sum(len(dialogue) for dialogue in dataset)
    print(f"{folder}: {len(dataset)} dialogues, {count} utterances, {', '.join(dataset.widths)}.")
    for warning in dataset.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _extract_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("extractor", help="a name of `mer-zoo list extractor`")
    command.add_argument("data", metavar="DATA", help="a dataset's name, or a folder that `import` made")
    command.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="container to write")
    command.add_argument("-o", "--override", metavar="KEY=VALUE", action="append", default=[], help="a setting")


def _extract(options: argparse.Namespace) -> None:
    from mer_zoo import registry
    from mer_zoo.data.container import write_dataset
    from mer_zoo.data.extraction import extract
    from mer_zoo.data.loading import load
    from mer_zoo.registry import document

    pairs = [text.partition("=") for text in options.override]
    card = registry.find("extractor", options.extractor)
    extractor = registry.build(card, {key: document.plain(value) for key, _, value in pairs}, {})
    dataset = extract(load(options.data), extractor, card.name)
    print(f"{write_dataset(dataset, options.output)}: {', '.join(f'{m} {w}' for m, w in dataset.widths.items())}")


def _train_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a name of `mer-zoo list recipe`, or a YAML file")
    command.add_argument("--data", default="synthetic", help="a dataset's name or folder (synthetic)")
    command.add_argument("--seed", type=int, default=0, help="decides weights, order and dropout (0)")
    command.add_argument("--fold", type=int, default=0, help="which fold, for data without a test split")
    _running(command)


def _train(options: argparse.Namespace) -> None:
    from rich.console import Console

    from mer_zoo.comparison.report import comparison_table
    from mer_zoo.training.experiment import keep, prepare

    _check_device(options.device)
    how = {"seed": options.seed, "device": options.device, "options": _options(options)}
    experiment = prepare(options.recipe, options.data, changes=options.override, fold=options.fold, **how)
    with _Bar(experiment.plan.training.epochs, experiment.name) as bar:
        outcome = experiment.run(bar.epoch)
    path = keep(experiment, outcome, options.output, weights=True)
    Console().print(comparison_table([outcome.result]))
    print(f"Model and result: {str(path).removesuffix('.result.json')}.{{safetensors,result.json}}")


def _evaluate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", type=Path, help="a .safetensors or .result.json that `train` wrote")
    command.add_argument("--data", default="synthetic", help="a dataset's name or folder (synthetic)")
    command.add_argument("--split", default="test", help="train, validation, test or all (test)")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")
    command.add_argument("--json", action="store_true", help="machine-readable")


def _evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    from mer_zoo.data.loading import load
    from mer_zoo.data.splits import split_dataset
    from mer_zoo.model.saving import load as load_model
    from mer_zoo.results.metrics import SCORES, score

    saved = load_model(options.run)
    dataset = load(options.data)
    if tuple(dataset.label_names) != saved.label_names:
        raise MerZooError(
            f"model '{saved.name}' knows the classes {', '.join(saved.label_names)}, but dataset '{dataset.name}' has "
            f"{', '.join(dataset.label_names)}. Use data with the same classes in the same order."
        )
    parts = {**split_dataset(dataset, saved.fold or 0)._asdict(), "all": tuple(dialogue.id for dialogue in dataset)}
    if options.split not in parts:
        raise MerZooError(f"no split '{options.split}'.{nearest(options.split, parts)}")
    _check_device(options.device)
    dialogues = dataset.select(parts[options.split])
    predicted = saved.predict(dialogues, options.device)
    labels = np.concatenate([dialogue.labels for dialogue in dialogues])
    found = np.concatenate([predicted[dialogue.id].argmax(-1) for dialogue in dialogues])
    scores = score(labels, found, dataset.label_names)
    if options.json:
        print(json.dumps(scores, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "class", "precision", "recall", "F1", "support", title=f"{saved.name} on {dataset.name}, {options.split}"
    )
    for name, row in scores["per_class"].items():
        table.add_row(name, *(f"{row[k]:.3f}" for k in ("precision", "recall", "f1")), str(row["support"]))
    Console().print(table)
    print("  ".join(f"{name.replace('_', ' ')} {scores[name]:.4f}" for name in SCORES))


def _predict_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", type=Path, help="a .safetensors or .result.json that `train` wrote")
    command.add_argument("--data", required=True, help="a dataset's name or folder; labels are not needed")
    command.add_argument("--output", metavar="FILE", type=Path, help="JSON file to write (the terminal)")
    command.add_argument("--json", action="store_true", help="machine-readable")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")


def _predict(options: argparse.Namespace) -> None:
    from mer_zoo.data.loading import load
    from mer_zoo.model.saving import load as load_model
    from mer_zoo.results.result import write_atomically

    saved = load_model(options.run)
    _check_device(options.device)
    found = saved.predict(load(options.data).conversations, options.device)
    if options.output is None and not options.json:
        for dialogue, rows in found.items():
            for turn, row in enumerate(rows):
                print(f"{dialogue}  {turn:>3}  {saved.label_names[row.argmax()]:<12} {row.max():.2f}")
        return
    text = json.dumps(
        {
            dialogue: {
                "predicted": [saved.label_names[i] for i in rows.argmax(-1)],
                "probability": [[round(p, 6) for p in row] for row in rows.tolist()],
            }
            for dialogue, rows in found.items()
        }
    )
    if options.output is None:
        print(text)
    else:
        write_atomically(options.output, text)
        print(options.output)


def _compare_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("suite", metavar="SUITE", nargs="?", default="default", help="a name or a YAML file (default)")
    command.add_argument("--data", action="append", help="dataset instead of the suite's; may be repeated")
    command.add_argument("--models", help="only these models of the suite, separated by semicolons")
    command.add_argument("--seeds", type=int, help="number of seeds instead of the suite's")
    command.add_argument("--workers", type=int, help="processes (one per processor)")
    command.add_argument(
        "--stack", action=argparse.BooleanOptionalAction, help="train a model's seeds as one program (on GPUs)"
    )
    command.add_argument("--keep-weights", action="store_true", help="also save every trained model")
    _running(command)


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from mer_zoo.comparison import suite as suites
    from mer_zoo.comparison.executing import Listener, execute
    from mer_zoo.comparison.report import comparison_table, write_html
    from mer_zoo.comparison.summary import write_csv

    suite = suites.read(options.suite)
    changed: dict[str, Any] = {}
    if options.data:
        changed["data"] = options.data
    if options.seeds is not None:
        if options.seeds < 1:
            raise MerZooError(f"--seeds {options.seeds}: want at least 1.")
        changed["seeds"] = options.seeds
    if options.models:
        chosen = [name.strip() for name in options.models.split(";")]
        for name in chosen:
            if name not in suite.models:
                raise MerZooError(f"--models: suite '{options.suite}' has no '{name}'.{nearest(name, suite.models)}")
        changed["models"] = {name: suite.models[name] for name in chosen}
    if options.override:
        from mer_zoo.registry import document

        pairs = [text.partition("=") for text in options.override]
        changed["change"] = {**suite.change, **{key: document.plain(value) for key, _, value in pairs}}
    suite = suite.model_copy(update=changed)
    _check_device(options.device)
    runs = suites.experiments(suite, device=options.device, options=_options(options))
    console = Console()
    console.print(f"[bold]{suite.title}[/]: {len(runs)} runs into {options.output}/")
    with _Bar(len(runs), "runs") as bar:
        listener = Listener(bar.start, bar.run, damaged=console.print)
        how: dict[str, Any] = {"workers": options.workers, "keep_weights": options.keep_weights}
        results, failures = execute(runs, options.output, listener=listener, **how)
    if results:
        console.print(comparison_table(results))
        console.print(f"One row per run: {write_csv(results, options.output / 'summary.csv')}")
        try:
            console.print(f"Report: {write_html(results, options.output / 'report.html')}")
        except MerZooError as error:
            console.print(f"No HTML report: {error}", markup=False)
    for failure in failures:
        print(f"{failure.experiment.name}, seed {failure.experiment.seed}: {failure.message}", file=sys.stderr)
    return int(bool(failures))


def _parity_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE.npz", type=Path, nargs="+", help="parity files")
    command.add_argument("--verbose", action="store_true", help="every quantity, not only the largest differences")


def _parity(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from mer_zoo.model import parity

    passes = True
    for path in options.file:
        differences = parity.check(path)
        groups: dict[str, list[parity.Difference]] = {}
        for d in differences:
            kind = next((k for k in ("gradient", "logits", "loss") if d.quantity.startswith(k)), d.quantity)
            groups.setdefault(d.quantity if options.verbose or not d.passes else kind, []).append(d)
        table = Table("quantity", "compared", "largest difference", "of tolerance", "", title=path.name)
        for name, members in groups.items():
            worst = max(members, key=lambda d: d.share)
            mark = "passes" if worst.passes else "[bold red]FAILS[/]"
            table.add_row(name, str(len(members)), f"{worst.difference:.2e}", f"{worst.share:.0%}", mark)
        Console().print(table)
        passes = passes and all(d.passes for d in differences)
    return int(not passes)


def _check_device(device: str) -> None:
    import torch

    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise MerZooError(f"--device {device}: not a device. Use cpu, cuda or cuda:0.") from None
    if parsed.type == "cuda" and (not torch.cuda.is_available() or (parsed.index or 0) >= torch.cuda.device_count()):
        raise MerZooError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs. Use --device cpu.")


class _Bar:
    """A progress bar over epochs or runs."""

    def __init__(self, total: int, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
        self._task = self._progress.add_task(what, total=total, note="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def epoch(self, record: dict[str, Any]) -> None:
        note = f"loss {record['train_loss']:.3f}  validation weighted F1 {record['validation_weighted_f1']:.3f}"
        self._progress.update(self._task, advance=1, note=note)

    def start(self, total: int, done: int) -> None:
        self._progress.update(self._task, total=total, completed=done, note=f"{done} already there" if done else "")

    def run(self, outcome: Any) -> None:
        if hasattr(outcome, "metrics"):
            note = f"{outcome.recipe_name}, seed {outcome.seed}: weighted F1 {outcome.metrics.test.weighted_f1:.3f}"
        else:
            note = f"{outcome.experiment.name}, seed {outcome.experiment.seed}: failed"
        self._progress.update(self._task, advance=1, note=note)


COMMANDS: dict[str, tuple[Any, str, Any]] = {
    "list": (_list, "Show the parts, recipes and suites there are.", _list_arguments),
    "describe": (_describe, "Show all there is to know of a part or recipe.", _describe_arguments),
    "train": (_train, "Train one recipe on one dataset.", _train_arguments),
    "evaluate": (_evaluate, "Score a trained model on a split.", _evaluate_arguments),
    "predict": (_predict, "Predict emotions of dialogues.", _predict_arguments),
    "compare": (_compare, "Run a suite of models, datasets and seeds, and compare them.", _compare_arguments),
    "validate": (_validate, "Report counts, ranges and traps of a dataset.", _data_arguments),
    "import": (_import, "Turn a feature file of the field into a folder mer-zoo reads.", _import_arguments),
    "extract": (_extract, "Make a modality anew from the transcripts.", _extract_arguments),
    "parity": (_parity, "Compare a recipe with a published implementation's numbers.", _parity_arguments),
    "new": (_new, "Write a new part from a template.", _new_arguments),
    "check": (_check, "Check that a part keeps its contract.", _check_arguments),
    "doctor": (_doctor, "Tell what is right and wrong with the installation.", lambda command: None),
}

if __name__ == "__main__":
    sys.exit(main())
