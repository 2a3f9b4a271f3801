"""mer_zoo: a DGL-based, pluggable model zoo for multimodal emotion recognition in conversation.

Everything below is imported on first use; `import mer_zoo` itself loads neither torch nor dgl.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Conversation": "mer_zoo.data.conversation",
    "Dataset": "mer_zoo.data.conversation",
    "MerZooError": "mer_zoo.errors",
    "attention": "mer_zoo.api.using",
    "check_part": "mer_zoo.checking",
    "compare": "mer_zoo.api.running",
    "contributions": "mer_zoo.api.using",
    "comparison_table": "mer_zoo.comparison.report",
    "describe": "mer_zoo.commands.describe",
    "export": "mer_zoo.api.using",
    "from_arrays": "mer_zoo.data.frames",
    "from_dataframe": "mer_zoo.data.frames",
    "load_data": "mer_zoo.api.given",
    "load_model": "mer_zoo.api.using",
    "onnx_inputs": "mer_zoo.api.using",
    "register": "mer_zoo.registry",
    "train": "mer_zoo.api.running",
    "tune": "mer_zoo.api.running",
    "write_html": "mer_zoo.comparison.report",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mer_zoo' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
