"""Write the vectors: `python -m vectors.make`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from vectors import (
    committee,
    compression,
    crypto,
    encoding,
    http,
    ideal,
    inference,
    oneshot,
    pairwise,
    receipts,
    rounds,
)

FOLDER = Path(__file__).parent


def xaynet() -> dict[str, object]:
    """Return everything that is in xaynet.json. Needs the extra `xaynet`."""
    return import_module("vectors.xaynet").build()  # type: ignore[no-any-return]


BUILDERS: dict[str, Callable[[], dict[str, object]]] = {
    "ideal.json": ideal.build,
    "ideal-sparse.json": partial(ideal.build, sparse=True),
    "pairwise.json": pairwise.build,
    "pairwise-sparse.json": partial(pairwise.build, pairwise.SPARSE),
    "committee.json": committee.build,
    "committee-hybrid.json": partial(committee.build, committee.HYBRID),
    "oneshot.json": oneshot.build,
    "crypto.json": crypto.build,
    "encoding.json": encoding.build,
    "compression.json": compression.build,
    "rounds.json": rounds.build,
    "http.json": http.build,
    "receipts.json": receipts.build,
    "inference.json": inference.build,
    "xaynet.json": xaynet,
}


def text(built: dict[str, object]) -> str:
    """Return vectors as they stand in their file."""
    return json.dumps(built, indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write every file anew."""
    for name, build in BUILDERS.items():
        (FOLDER / name).write_text(text(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
