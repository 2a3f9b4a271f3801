"""The commands of `mer-zoo`, one file each: `arguments` adds what a command takes, `run` does it.

The first line of `run`'s docstring is what `mer-zoo --help` says of the command. `STOPPED`, where there is one, is what
Ctrl-C leaves behind.
"""
