"""Encapsulated secrets, kept from one making of the vectors to the next: the library draws them, and no seed does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate, Encapsulated, Encapsulation

FOLDER = Path(__file__).parent


def kept(file: str, owner: str, task: Encapsulate) -> Encapsulated:
    """Return what the file has for these members' keys; what was drawn for others does not fit, and is drawn anew."""
    path = FOLDER / file
    rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    row = rows.get("encapsulated", {}).get(owner)
    if row is None or row["book"] != task.book.hex():
        return encapsulate_all(task)
    drawn = tuple(Encapsulation(bytes.fromhex(secret), bytes.fromhex(carried)) for secret, carried in row["drawn"])
    return Encapsulated(task.sid, task.book, drawn)


def shown(answer: Encapsulated) -> dict[str, object]:
    """Return a row of the file: root of the book, and secret and ciphertext for each member in it."""
    return {"book": answer.book.hex(), "drawn": [[one.secret.hex(), one.ciphertext.hex()] for one in answer.drawn]}
