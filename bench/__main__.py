"""Print the table: `python -m bench [--quick] [--json] [names...]`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib import import_module

from bench.machine import describe
from bench.measure import Line

NAMES = (
    "start",
    "encode",
    "masks",
    "fold",
    "rounds",
    "ingest",
    "memory",
    "noise",
    "robust",
    "compress",
    "lattice",
    "oneshot",
    "committee",
)
ON_DEMAND = ("sparse", "xaynet")
"""Takes some minutes by itself, or the wheel of another project."""

COLUMNS = "{:<72} {:>12} {:>12} {:>8} {:>14} {:>6}"


def main() -> int:
    arguments = parse()
    quick, chosen = arguments.quick, arguments.names or NAMES
    shown: list[Line] = []
    if not arguments.json:
        print(describe())
        print(COLUMNS.format("what", "ours", "floor", "ratio", "bar", ""), flush=True)
    begin = time.perf_counter()
    for name in chosen:
        for line in import_module(f"bench.{name}").lines(quick):
            shown.append(line)
            if not arguments.json:
                show(line)
    if arguments.json:
        lines = [asdict(line) | {"ratio": line.ratio, "holds": line.holds} for line in shown]
        print(json.dumps({"machine": describe(), "lines": lines}, indent=1))
    else:
        print(f"{time.perf_counter() - begin:.0f} s")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and no case of 1,000 participants")
    parser.add_argument("--json", action="store_true", help="for machines: one object, at the end")
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join((*NAMES, *ON_DEMAND))}")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*NAMES, *ON_DEMAND}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join((*NAMES, *ON_DEMAND))}")
    return arguments


def show(line: Line) -> None:
    print(
        COLUMNS.format(
            line.what,
            amount(line.ours, line.unit),
            amount(line.floor, line.unit) if line.floor is not None else "",
            f"{line.ratio:.3g}x" if line.ratio is not None else "",
            limit(line),
            {None: "", True: "ok", False: "short"}[line.holds],
        ).rstrip()
    )
    if line.wall is not None and line.wall > 1.2 * seconds(line):
        print(f"    {amount(line.wall, 's')} by the clock on the wall")
    for note in line.notes:
        print(f"    {note}")
    sys.stdout.flush()


def seconds(line: Line) -> float:
    """Return ours in seconds where it is a time, and no limit where it is not."""
    return line.ours * {"s": 1.0, "ms": 1e-3}.get(line.unit, float("inf"))


def amount(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def limit(line: Line) -> str:
    if line.bar is None:
        return ""
    if line.bar.kind == "ratio":
        return f"<= {line.bar.value:g}x"
    return f"{'<=' if line.bar.kind == 'at most' else '>='} {line.bar.value:g} {line.unit}"


if __name__ == "__main__":
    sys.exit(main())
