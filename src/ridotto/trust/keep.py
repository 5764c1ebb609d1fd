"""A folder in which a participant keeps the receipts of its rounds, each checked as soon as its round is over.

    round-3-<32 digits>.pending.json   a note: what was sent, and in which session; not checked yet
    round-3-<32 digits>.receipt.json   the receipt, without names
    round-3-<32 digits>.proof.json     the note with the proof, or with what the coordinator said in place of one
    round-3-<32 digits>.refused.json   a receipt that did not hold: evidence against the coordinator

The digits are of a hash over name, attempt and session, so no note takes another's place. A pending note goes only when
receipt and proof are on the disk, so a kill at any moment leaves something from which to go on. Notes name everybody in
the session; files have mode 0600.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import digest, sentence
from ridotto.errors import DataError, PeerProtocolError, StorageError
from ridotto.participant.notes import NotThereError, Source
from ridotto.rounds.inclusion import Contributed, decode_contributed, encode_contributed
from ridotto.rounds.receipt import decode_receipt
from ridotto.secagg.session import session_id
from ridotto.trust.audit import audit
from ridotto.trust.own import own_sentence

SHOWN_DIGITS = 32
"""Of what a note is about, in names of files."""

PENDING = ".pending.json"


class Receipts:
    """Keep one's receipts in a folder, which is made with mode 0700 if it is not there (`participant.notes.Keeper`).

    Give it to `ridotto.rounds(..., receipts=ridotto.Receipts("receipts"))`.
    Raises StorageError if the folder can't be used or a note in it is damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        with self._storing():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = {path: path.read_bytes() for path in sorted(self.folder.glob("*" + PENDING))}
        self._pending = {path: _read(path, data) for path, data in found.items()}

    def note(self, own: Contributed) -> None:
        """Keep a note; when this returns it survives a kill."""
        path = self._path(own, PENDING)
        self._write(path, encode_contributed(own))
        self._pending[path] = own

    def check(self, source: Source, coordinator: bytes, name: str, over: int) -> Iterator[tuple[Contributed, str]]:
        """Check every note of `name` whose attempt is over; see `participant.notes.Keeper`."""
        for path, own in list(self._pending.items()):
            if own.name == name and (own.model is not None or own.attempt < over):
                yield own, self._check(source, coordinator, own)
                with self._storing():
                    path.unlink(missing_ok=True)
                del self._pending[path]

    def _check(self, source: Source, coordinator: bytes, own: Contributed) -> str:
        try:
            data = source.receipt(own.session.round, own.attempt)
        except NotThereError as error:
            if own.model is not None:
                raise NotThereError(f"it closed attempt {own.attempt}, and gives no receipt of it: {error}") from error
            # Nobody said that the attempt was closed: it was given up, and such attempts have no receipt.
            own = replace(own, denied=sentence(error))
            self._write(self._path(own, ".proof.json"), encode_contributed(own))
            return f"Not proved: that a contribution of {own.name} was in a sum. The coordinator said: {own.denied}."
        try:
            said, own = _audited(source, data, coordinator, own)
        except PeerProtocolError as error:
            kept = self._path(own, ".refused.json")
            self._write(kept, data)
            raise PeerProtocolError(COORDINATOR, f"{error.why}; its receipt is kept as {kept}") from error
        self._write(self._path(own, ".receipt.json"), data)
        self._write(self._path(own, ".proof.json"), encode_contributed(own))
        return said

    def _path(self, own: Contributed, ending: str) -> Path:
        about = digest(f"{own.name}\0{own.attempt}\0".encode() + session_id(own.session)).hex()[:SHOWN_DIGITS]
        return self.folder / f"round-{own.session.round}-{about}{ending}"

    def _write(self, path: Path, data: bytes) -> None:
        """Write beside the place, force it to the disk, then rename."""
        with self._storing():
            descriptor, temporary = tempfile.mkstemp(prefix=".", dir=self.folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                Path(temporary).unlink(missing_ok=True)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"receipts can't be kept in {self.folder}: {error.strerror or error}") from error


def _audited(source: Source, data: bytes, coordinator: bytes, own: Contributed) -> tuple[str, Contributed]:
    """Check a receipt, ask for the proof and check it; return what it says, and the note with the proof."""
    try:
        receipt = decode_receipt(data).receipt
    except DataError as error:
        raise PeerProtocolError(COORDINATOR, str(error)) from error
    audit(data, coordinator)
    sid = session_id(own.session)
    if all(one.sid != sid.hex() for one in receipt.sums):
        own = replace(own, denied="no sum of this session was opened")
    else:
        try:
            own = replace(own, inclusion=source.proof(receipt.round, sid))
        except NotThereError as error:
            own = replace(own, denied=sentence(error))
    return own_sentence(receipt, own), own


def _read(path: Path, data: bytes) -> Contributed:
    try:
        return decode_contributed(data)
    except DataError as error:
        raise StorageError(f"the note {path} is damaged: {error}; move it away and start again") from error
