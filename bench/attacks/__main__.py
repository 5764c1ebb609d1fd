"""Run the attacks and print a table for each: `python -m bench.attacks --data DIR [--quick] [attack...]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter

from bench.attacks.table import Settings, Table
from bench.machine import describe

ATTACKS = ("inversion", "membership", "poisoning", "replacement", "disaggregation", "audit")


def main() -> int:
    arguments = parse()
    settings = Settings(arguments.data, arguments.quick, arguments.seed)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    extent = "quick" if settings.quick else "full"
    print(f"{describe()}; {extent}; load {os.getloadavg()[0]:.1f}", flush=True)
    for name in arguments.attacks or ATTACKS:
        started = perf_counter()
        tables = import_module(f"bench.attacks.{name}").run(settings)
        seconds = perf_counter() - started
        for table in tables:
            print(f"\n{table.markdown()}", flush=True)
        print(f"{name}: {seconds:.0f} s", flush=True)
        write(out / f"attacks-{name}.json", tables, extent, seconds)
        if not arguments.no_pictures:
            from bench.attacks.pictures import draw

            print(*draw(name, tables, out), sep="\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument(
        "--data", required=True, help="mnist.npz or its folder; bench/simulation/README.md says where from"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer victims, rounds and models: some three minutes in all"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="results", help="folder for the JSON and the pictures")
    parser.add_argument("--no-pictures", action="store_true", help="without the extra `plot`")
    parser.add_argument("attacks", nargs="*", metavar="attack", help=f"some of: {', '.join(ATTACKS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.attacks) - set(ATTACKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    return arguments


def write(file: Path, tables: list[Table], extent: str, seconds: float) -> None:
    found = {table.name: table.as_dict() for table in tables}
    head = {"machine": describe(), "extent": extent, "seconds": round(seconds)}
    file.write_text(json.dumps(head | {"tables": found}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
