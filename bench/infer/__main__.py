"""Print the table: `python -m bench.infer [--repeats 20] [--only A1,L128] [--in-process] [--json]`.

Parties and dealer are three processes of one thread each, with TLS between them, and the client a fourth. Times are
those that the client sees; the median and the best. The floor is the plain forward pass in float32 NumPy, one thread,
measured in the same run between the queries.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from bench.infer.models import inputs, lenet, mlp
from bench.machine import describe
from ridotto import infer
from ridotto.infer import reference

GOALS = {"A1": (1.5, 4.0), "A128": (6.0, 15.0), "L1": (4.0, 10.0), "L128": (180.0, 600.0)}
"""Milliseconds: online, and offline and online together."""

MODELS = {"A": mlp, "L": lenet}


@dataclass(frozen=True)
class Row:
    """Times in milliseconds, bytes in millions, medians but for `best_ms`."""

    what: str
    output: str
    online_ms: float
    best_ms: float
    offline_ms: float
    rounds: int
    sent_mb: float
    plain_ms: float
    agreement: float
    largest_error: float | None

    def line(self) -> str:
        online, total = GOALS.get(self.what, (float("inf"),) * 2)
        verdict = "ok" if self.best_ms <= online and self.best_ms + self.offline_ms <= total else "short"
        error = "" if self.largest_error is None else f"{self.largest_error:.4f}"
        return (
            f"{self.what:5} {self.output:7} {self.online_ms:9.2f} {self.best_ms:9.2f} {self.offline_ms:9.2f} "
            f"{self.rounds:6} {self.sent_mb:8.3f} {self.plain_ms:8.2f} {self.agreement:7.3f} {error:>8} {online:7.1f} "
            f"{total:7.1f} {verdict}"
        )


HEAD = (
    "what  output     online      best   offline rounds       MB    plain   agree    error    goal   total\n"
    "                     ms        ms        ms                       ms                       ms      ms"
)


def main() -> int:
    arguments = parse()
    world = infer.local() if arguments.in_process else infer.processes()
    if not arguments.json:
        print(f"{describe()}; load {os.getloadavg()[0]:.1f}\n{HEAD}", flush=True)
    rows = []
    with world:
        for kind, make in MODELS.items():
            graph = make()
            secret_model = world.share_model(graph)
            for batch in sorted({int(name[1:]) for name in arguments.only if name[0] == kind}):
                for output in ("class", "logits"):
                    rows.append(measure(secret_model, graph, f"{kind}{batch}", batch, output, arguments.repeats))
                    if not arguments.json:
                        print(rows[-1].line(), flush=True)
    if arguments.json:
        print(json.dumps({"machine": describe(), "rows": [asdict(row) for row in rows]}, indent=1))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.infer", description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", default=",".join(GOALS), help="model and batch, as A1,L128")
    parser.add_argument("--in-process", action="store_true", help="everybody in this process, one after the other")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    return arguments


def measure(secret_model: Any, graph: Any, what: str, batch: int, output: str, repeats: int) -> Row:
    x = inputs(graph, batch)
    stats, plain = [], []
    agreement, error = 1.0, None
    for turn in range(repeats + 2):
        secret = secret_model.world.share_input(x)
        computed = secret_model(secret)
        found = computed.argmax().reveal() if output == "class" else computed.reveal()
        secret.forget()
        begin = time.perf_counter()
        expected = reference.forward(graph, x)
        seconds = time.perf_counter() - begin
        # The first two load and compile.
        if turn > 1:
            stats.append(secret_model.stats)
            plain.append(seconds)
            classes = found if output == "class" else found.argmax(axis=1)
            agreement = min(agreement, float(np.mean(classes == expected.argmax(axis=1))))
            if output == "logits":
                error = max(error or 0.0, float(np.abs(found - expected).max()))
    online = [each.online_s * 1e3 for each in stats]
    return Row(
        what,
        output,
        median(online),
        min(online),
        median(each.offline_s for each in stats) * 1e3,
        stats[-1].rounds,
        stats[-1].sent_bytes / 1e6,
        median(plain) * 1e3,
        agreement,
        error,
    )


if __name__ == "__main__":
    sys.exit(main())
