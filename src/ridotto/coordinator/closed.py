"""What is asked about attempts that ended: their records, their receipts, and who may have which proof."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ridotto.coordinator.blobs import Blobs
from ridotto.coordinator.receipts import proof_for, receipt_names
from ridotto.coordinator.refusals import RefusalError, RefusalKind
from ridotto.coordinator.store import Store, StoredRecord
from ridotto.errors import StorageError
from ridotto.rounds.inclusion import Inclusion
from ridotto.rounds.service import RECORDS_PAGE


class ClosedRounds:
    """Answer from a store and its blobs. Every method raises StorageError if they can't be read."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    async def records(self, number: int | None = None, after: int = 0) -> list[StoredRecord]:
        """Return signed records in order of attempts: of one round, or the next `RECORDS_PAGE` after an attempt."""
        limit = RECORDS_PAGE if number is None else None
        return await asyncio.to_thread(self._store.records, number, after, limit)

    async def receipt(self, number: int, attempt: int) -> Path:
        """Return the file of a receipt without names. attempt: 0 for the last one of the round.

        Raises RefusalError if there is none.
        """
        found = await asyncio.to_thread(self._store.receipts, number)
        chosen = [one for one in found if attempt in (0, one.attempt)]
        if not chosen:
            of = f" of attempt {attempt}" if attempt else ""
            raise RefusalError(RefusalKind.NOT_FOUND, f"there is no receipt{of} of round {number}")
        path = self._blobs.path(receipt_names(chosen[-1])[1])
        if not path.is_file():
            raise StorageError(f"the receipt {path} is gone; restore the folder from a copy")
        return path

    async def proof(self, name: str, number: int, sid: bytes) -> Inclusion:
        """Return the proof that a participant's own contribution is in the sum of a session.

        Raises RefusalError if no such sum was opened in this round, or the participant is not in it.
        """
        opening = await asyncio.to_thread(self._store.opening, sid)
        if opening is None or opening.round != number:
            raise RefusalError(RefusalKind.NOT_FOUND, f"no sum of this session was opened in round {number}")
        proof = await asyncio.to_thread(proof_for, opening, name)
        if proof is None:
            raise RefusalError(RefusalKind.NOT_INCLUDED, f"no contribution of {name} is in the sum of this session")
        return proof
