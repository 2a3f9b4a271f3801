"""`python -m docs.generator` writes the generated pages; `--check` writes nothing and reports every fault."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from docs import generator


def main() -> int:
    """Run; returns 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m docs.generator", description=generator.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; report every fault")
    found = generator.faults()
    if parser.parse_args().check:
        with tempfile.TemporaryDirectory() as nowhere:
            generator.pages(Path(nowhere), examples=False)  # every page can be made
    elif not found:
        generator.write()
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"docs: {len(found)} faults.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
