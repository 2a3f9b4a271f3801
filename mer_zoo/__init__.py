"""mer_zoo: a DGL-based, pluggable model zoo for multimodal emotion recognition in conversation."""

__version__ = "0.1.0"
