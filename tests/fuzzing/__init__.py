"""Fuzzing that stays: every file that a user may be handed, valid ones mutated, read under limits on time and memory.

The one property: whatever a file holds, reading and using it ends well or in a `MerZooError`, within `guarded.SECONDS`
and `guarded.MEGABYTES`. `make fuzz CASES=10000` runs it at length; the normal tests run a short piece of it.

| file | what is in it |
|---|---|
| `mutations.py` | how valid data becomes invalid: trees of plain data, arrays, bytes |
| `formats.py` | from trees to the bytes of a file: YAML, JSON, npz, pickle, safetensors |
| `entries.py` | what is read, from which valid files, and what is done with it |
| `guarded.py` | a child process with limits that tries one case after another |
| `__main__.py` | the command |
| `corpus/` | what was found, a folder per entry point; tried again by every run |
"""
