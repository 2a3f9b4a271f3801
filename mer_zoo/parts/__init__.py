"""The parts models are made of, one file each; `registry/KIND/NAME.yaml` is the card of `parts/KIND/NAME.py`."""
