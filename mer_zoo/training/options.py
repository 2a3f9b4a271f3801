"""How to compute, which is no part of what is computed: precision, captured steps, what is noted on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

from mer_zoo.errors import MerZooError, nearest
from mer_zoo.results.identity import Precision
from mer_zoo.training import memory


def check_device(device: str) -> None:
    """Refuse a device that a model cannot be computed on here.

    Args:
        device: `cpu`, `cuda`, `cuda:1`.

    Raises:
        MerZooError: another kind of device, or a GPU that torch does not see.

    Example:
        >>> check_device("mps")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: device 'mps': not a device that is supported. Use cpu, cuda or cuda:1.
    """
    import torch

    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", device):
        raise MerZooError(f"device '{device[:80]}': not a device that is supported. Use cpu, cuda or cuda:1.")
    number = int(device.partition(":")[2] or 0)
    if device != "cpu" and not (torch.cuda.is_available() and number < torch.cuda.device_count()):
        raise MerZooError(f"device '{device}': torch sees {torch.cuda.device_count()} GPUs. Use another, or cpu.")


@dataclass(frozen=True)
class ComputeOptions:
    """Choices that change time, rounding and what is noted, not the model; the defaults are right for short runs.

    Attributes:
        precision: `float32`; `tf32`, float32 whose products are rounded to 10 bits (GPUs only); `bf16`, products in
            bfloat16, weights and sums in float32.
        capture: pad batches to a few shapes and record each as a CUDA graph; None: on GPUs. On CPU the shapes are
            padded, but nothing is recorded.
        compile: fuse the captured step with torch.compile; costs one to two minutes per shape before the first step.
        deterministic: refuse operations whose result changes from run to run.
        stack: train several seeds as one program; None: on GPUs, as many as memory allows.
        contributions: note after every epoch what each modality contributes on validation, see
            `mer_zoo.contributions`, mean over utterances; validation is then judged once more without each.

    Raises:
        MerZooError: unknown precision, or compile without capture.

    Example:
        >>> ComputeOptions(precision="fp16")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: no precision 'fp16'. Did you mean 'bf16'?
    """

    precision: Precision = "float32"
    capture: bool | None = None
    compile: bool = False
    deterministic: bool = False
    stack: bool | None = None
    contributions: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            known = get_args(Precision)
            raise MerZooError(f"no precision '{self.precision}'.{nearest(self.precision, known)}")
        if self.compile and self.capture is False:
            raise MerZooError("compile needs captured steps, whose shapes are fixed. Leave `capture` on.")

    def captures(self, device: str) -> bool:
        """Whether steps are captured on this device."""
        return self.compile or (device.startswith("cuda") if self.capture is None else self.capture)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Set torch's switches, and malloc's, for the time of a run, and put them back.

        Example:
            >>> import torch
            >>> with ComputeOptions(deterministic=True).computing():
            ...     torch.are_deterministic_algorithms_enabled()
            True
            >>> torch.are_deterministic_algorithms_enabled()
            False
        """
        import torch

        products, fixed = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        try:
            with memory.kept():
                yield
        finally:
            torch.set_float32_matmul_precision(products)
            torch.use_deterministic_algorithms(fixed)
