"""The arguments that `train`, `compare` and `tune` share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    from mer_zoo.comparison.ray_cluster import RayCluster
    from mer_zoo.comparison.tracking import Choice
    from mer_zoo.training.options import ComputeOptions


def arguments(command: argparse.ArgumentParser) -> None:
    """Add them."""
    command.add_argument("--output", metavar="DIR", type=Path, default=Path("runs"), help="result folder (runs)")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (cpu)")
    command.add_argument("-o", "--change", metavar="KEY=VALUE", action="append", default=[], help="change the recipe")
    command.add_argument("--protocol", metavar="NAME", help="validation, or test-oracle to replay the literature")
    command.add_argument(
        "--split",
        metavar="KEY=VALUE",
        action="append",
        help="how dialogues are split: test=sessions, validation=last, share=0.2, ...",
    )
    command.add_argument("--precision", default="float32", help="float32, tf32 or bf16 (float32)")
    command.add_argument(
        "--capture", action=argparse.BooleanOptionalAction, help="record steps as CUDA graphs (on GPUs)"
    )
    command.add_argument("--compile", action="store_true", help="fuse captured steps; one to two minutes per shape")
    command.add_argument("--deterministic", action="store_true", help="bitwise equal runs, at a price")


def noting_arguments(command: argparse.ArgumentParser) -> None:
    """Add `--contributions` and `--track`."""
    command.add_argument(
        "--contributions",
        action="store_true",
        help="note what each modality contributes on validation, epoch by epoch",
    )
    track_argument(command)


def track_argument(command: argparse.ArgumentParser) -> None:
    """Add `--track`."""
    command.add_argument(
        "--track",
        metavar="TRACKER",
        action="append",
        default=[],
        help="log runs: tensorboard, mlflow, wandb, or '{name: mlflow, experiment: mine}'; may be repeated",
    )


def trackers(options: argparse.Namespace) -> list[Choice]:
    """Return what `--track` asks for."""
    from mer_zoo.comparison.tracking import choose

    return choose([named(text, "--track") for text in options.track], "--track")


def named(text: str, option: str) -> Any:
    """Return a name as it is, or `{name: ..., settings}` as a mapping."""
    from mer_zoo.registry import document

    if not text.lstrip().startswith("{"):
        return text
    try:
        return document.plain(text)
    except Exception:  # whatever a YAML reader may stumble over
        raise MerZooError(f"{option} {text}: not valid YAML.") from None


def places(command: argparse.ArgumentParser) -> None:
    """Add where runs and trials are computed."""
    command.add_argument("--workers", type=int, help="processes (one per processor, or per GPU)")
    command.add_argument("--executor", choices=("local", "ray"), default="local", help="local, or on a cluster (local)")
    command.add_argument(
        "--address", help="of a Ray cluster: auto, HOST:PORT (with --executor ray; one is started here)"
    )
    command.add_argument("--cpus", type=float, help="processors of a run on a Ray cluster (1)")
    command.add_argument("--gpus", type=float, help="GPUs of a run on a Ray cluster (1 with --device cuda)")


def executor(options: argparse.Namespace) -> RayCluster | None:
    """Return what computes runs elsewhere, if that is asked for."""
    if options.executor == "local":
        given = [name for name in ("address", "cpus", "gpus") if getattr(options, name) is not None]
        if given:
            raise MerZooError(f"--{given[0]}: only --executor ray uses it. Add that, or leave it out.")
        if options.workers is not None and options.workers < 1:
            raise MerZooError(f"--workers {options.workers}: want at least 1, or leave it out for one per processor.")
        return None
    from mer_zoo.comparison.ray_cluster import RayCluster

    if options.workers is not None:
        raise MerZooError("--workers: with --executor ray, the cluster and --cpus decide. Leave it out.")
    if options.device not in ("cpu", "cuda"):
        raise MerZooError(f"--device {options.device}: Ray chooses the GPU. Use cpu or cuda.")
    gpus = float(options.device == "cuda") if options.gpus is None else options.gpus
    return RayCluster(options.address, 1.0 if options.cpus is None else options.cpus, gpus)


def device_here(options: argparse.Namespace) -> str:
    """Return where to try what will be computed: the machine that asks a cluster may have no GPU."""
    return options.device if options.executor == "local" else "cpu"


def split_fields(options: argparse.Namespace) -> dict[str, str]:
    """Return what `--split` says, by key."""
    pairs = [text.partition("=") for text in options.split or []]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise MerZooError(f"--split {wrong[0]}: want KEY=VALUE, such as test=sessions.")
    return {key: value for key, _, value in pairs}


def compute_options(options: argparse.Namespace) -> ComputeOptions:
    """Return how to compute."""
    from mer_zoo.training.options import ComputeOptions

    more = {name: getattr(options, name) for name in ("stack", "contributions") if hasattr(options, name)}
    return ComputeOptions(options.precision, options.capture, options.compile, options.deterministic, **more)
