"""Measure the ratios in docs/results/benchmarks.md: ``python benchmarks/run.py [NAME ...]``.

Nothing here is a test: figures depend on the machine, ratios much less. Naming some
benchmarks measures those and leaves the other sections of the file as they are.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from measure import Row

#: Module -> title, in the order of the table.
BENCHES = {
    "startup": "Start-up",
    "step": "A training step",
    "transformer": "A Transformer step",
    "dynamic": "A step under a changing mask",
    "graphs": "Graph tickets",
    "generative": "Generative tickets",
    "concrete": "Concrete ticket search",
    "selection": "Selection",
    "scores": "Scores at initialisation",
    "imp_run": "A whole IMP run",
    "study": "A study on two workers",
    "artifacts": "Artifacts",
}
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmarks.md"
HEAD = """# Benchmarks

What lth_zoo costs beside what one would write or use instead: ratios, each measured in one
process with its arms interleaved (A B A B ...), as medians of process CPU time on one thread
with the garbage collected before, unless a section says otherwise. Where arms run in rounds
the ratio is the median of the rounds' ratios, which drift does not move. A target is one of
the ratio, or, where it has a unit, of the figure itself.

Get it again: `make bench`, or one section with `python benchmarks/run.py NAME`
({names}).
"""


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    import torch

    from lth_zoo import __version__
    from lth_zoo.session import cpu_model

    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores, load before {load}",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "lth_zoo": __version__,
    }


def figure(value: float | None) -> str:
    """Return a number with three digits that count, or a hyphen for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def section(name: str, rows: Sequence[Row], where: dict[str, str], seconds: float) -> str:
    """Return a benchmark's section in Markdown."""
    words = (importlib.import_module(name).__doc__ or "").strip()
    lines = [f"## {BENCHES[name]}", "", words, ""]
    lines += ["| | figure | against | | ratio | target | met |", "|---|--:|--:|---|--:|--:|---|"]
    for row in rows:
        sign = "≥" if row.least else "≤"
        unit = f" {row.unit}".rstrip() if row.ratio is None else ""
        target = "" if row.target is None else f"{sign} {row.target:g}{unit}"
        met = {True: "yes", False: "**no**", None: ""}[row.met]
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        cells = [row.name, figure(row.ours), figure(row.other), row.unit, ratio, target, met]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- {row.name}: {row.note}." for row in rows if row.note]
    lines += ["", *notes] if notes else []
    facts = ", ".join(f"{k} {v}" for k, v in where.items())
    return "\n".join([*lines, "", f"Measured in {seconds:.0f} s: {facts}.", ""])


def merged(old: str, new: dict[str, str]) -> str:
    """Return the file with the new sections in the place of the old ones."""
    found = re.findall(r"(?ms)^## (.+?)$\n.*?(?=^## |\Z)", old)
    bodies = re.split(r"(?m)^(?=## )", old)[1:]
    sections = dict(zip(found, bodies, strict=True)) | {BENCHES[n]: s for n, s in new.items()}
    ordered = [sections[title].rstrip() for title in BENCHES.values() if title in sections]
    return "\n\n".join([HEAD.format(names=", ".join(BENCHES)).rstrip(), *ordered]) + "\n"


def main() -> int:
    """Run benchmarks, print and write their tables; 0 unless something broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--out", default=str(OUT), help="file to update; - for none")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHES)):
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHES)}")
    import torch

    torch.set_num_threads(1)
    answer, sections = [], {}
    for name in options.names or BENCHES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        where, began = machine(), time.perf_counter()
        rows = importlib.import_module(name).bench()
        sections[name] = section(name, rows, where, time.perf_counter() - began)
        if not options.json:
            print(sections[name], flush=True)
        answer.append(
            {"name": name, **where, "rows": [asdict(row) | {"met": row.met} for row in rows]}
        )
        if options.out != "-":  # after each, so that an interruption loses one section
            path = Path(options.out)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(merged(path.read_text() if path.exists() else "", sections))
    if options.json:
        print(json.dumps(answer, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
