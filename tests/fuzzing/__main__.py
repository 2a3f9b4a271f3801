"""The command: `python -m fuzzing --cases 10000` (with `tests/` on the path) tries so many cases per entry point."""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzzing.entries import Entry, cases, entries
from fuzzing.formats import crc
from fuzzing.guarded import Child
from fuzzing.sound import HERE

CORPUS = HERE / "corpus"
HEADINGS = ("entry point", "cases", "accepted", "seconds", "worst", "peak MB", "findings")


def replayed(entry, child):
    """Try what was found before; yields (name, verdict) of what is found again."""
    for path in sorted((CORPUS / entry.name).glob("*")):
        verdict = child.try_case(path.read_bytes())
        if not verdict.passes:
            yield path.name, verdict


def fuzz(entry: Entry, count: int, start: int, kept: Path | None = None):
    """Try the corpus, then cases drawn anew.

    Args:
        entry: the entry point.
        count: cases.
        start: decides which.
        kept: where the shortest case of every finding is written.

    Returns:
        a row of figures, and what was found: signature -> (content, verdict).
    """
    found, tried, accepted, worst, peak = {}, 0, 0, 0.0, 0.0
    begin = time.perf_counter()
    with Child(entry) as child:

        @seed(start)
        @settings(
            max_examples=count, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(cases(entry))
        def go(case):
            nonlocal tried, accepted, worst, peak
            sound, content = case
            verdict = child.try_case(content)
            if sound and verdict.kind == "refused":
                verdict = replace(verdict, kind="a sound file refused")
            tried, accepted = tried + 1, accepted + (verdict.kind == "accepted")
            worst, peak = max(worst, verdict.seconds), max(peak, verdict.megabytes)
            if not verdict.passes:
                key = signature(verdict)
                if key not in found or len(content) < len(found[key][0]):
                    found[key] = content, verdict

        for name, verdict in replayed(entry, child):
            found[f"{name} in the corpus"] = (CORPUS / entry.name / name).read_bytes(), verdict
        go()
    for content, _ in found.values():
        if kept is not None:
            (kept / entry.name).mkdir(parents=True, exist_ok=True)
            (kept / entry.name / crc(content)).write_bytes(content)
    row = (entry.name, tried, accepted, time.perf_counter() - begin, worst, peak, len(found))
    return row, found


def signature(verdict):
    """Return what tells one finding from another: the kind of error, and where it was raised."""
    lines = verdict.text.strip().splitlines() or [""]
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    return f"{verdict.kind}: {lines[-1].split(':')[0][:60]} {places[-1] if places else ''}"


def main(arguments=None):
    """Run; returns 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="per entry point (1000)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides the cases (the time)")
    parser.add_argument("--entry", action="append", help="only this one; may be repeated")
    parser.add_argument("--kept", type=Path, help="where to keep the cases that fail")
    options = parser.parse_args(arguments)
    known = entries()
    print(f"seed {options.seed}")
    print("{:18} {:>8} {:>9} {:>9} {:>7} {:>8} {:>9}".format(*HEADINGS), flush=True)
    all_found = {}
    for name in options.entry or known:
        row, found = fuzz(known[name], options.cases, options.seed, options.kept)
        print("{:18} {:8,} {:9,} {:9.1f} {:7.2f} {:8.0f} {:9}".format(*row), flush=True)
        all_found |= {f"{name}: {key}": verdict for key, (_, verdict) in found.items()}
    for key, verdict in all_found.items():
        print(f"\n== {key}\n{verdict.text}")
    return int(bool(all_found))


if __name__ == "__main__":
    sys.exit(main())
