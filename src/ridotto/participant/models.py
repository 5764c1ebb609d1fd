"""Fetch models: whole, or as what has changed since the last one, which is then kept beside the state file.

Whatever comes is checked against the SHA-256 that the coordinator signed, so neither a damaged file here nor a wrong
delta does any harm: the whole model is fetched instead. A file keeps its header, whichever library wrote it, and only
its numbers change; so the same bits come out here as there.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from ridotto.core.machine import COORDINATOR, Buffer
from ridotto.core.tensors import read_model, rewrite_model
from ridotto.core.wire import digest
from ridotto.errors import DataError, PeerProtocolError, ProtocolError
from ridotto.learn.compress.delta import apply_delta, split_deltas
from ridotto.participant.client import Client
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.service import FederationInfo

_log = logging.getLogger(__name__)


class Models:
    """Fetch models for one participant. path: where the last one is kept. limit_bytes: of the largest right file."""

    def __init__(self, client: Client, path: Path, limit_bytes: int) -> None:
        self._client = client
        self._path = path
        self._limit_bytes = limit_bytes

    def fetch(self, sha256: bytes, *, keep: bool) -> Buffer:
        """Return the model file with this digest. keep: the plan has `download_bits`, so that it pays to keep it.

        Raises PeerProtocolError if the coordinator does not have it, or sends another one.
        """
        held = self._held() if keep else None
        if held is None:
            file: Buffer = self._client.model(sha256, self._limit_bytes)
        else:
            before = digest(held)
            if before == sha256:
                return held
            file = self._changed(held, before, sha256)
        if keep:
            self._keep(file)
        return file

    def _changed(self, held: bytes, before: bytes, sha256: bytes) -> Buffer:
        """Fetch what leads on from the file that is held, or the whole model if the coordinator prefers that."""
        body = self._client.model_since(before, sha256, self._limit_bytes)
        if digest(body) == sha256:
            return body
        try:
            return rebuilt(held, body, sha256)
        except DataError as error:
            _log.warning("the deltas of model %s are of no use, the whole is fetched: %s", sha256.hex()[:16], error)
            return self._client.model(sha256, self._limit_bytes)

    def _held(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the model %s can't be read, the next one is fetched whole: %s", self._path, error.strerror)
            return None

    def _keep(self, file: Buffer) -> None:
        """Keep a file in place of the last one. One that is lost costs a download and nothing else."""
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "wb") as beside:
                    beside.write(file)
                os.replace(temporary, self._path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the model %s can't be kept, the next one is fetched whole: %s", self._path, error.strerror)


def rebuilt(held: bytes, deltas: Buffer, sha256: bytes) -> Buffer:
    """Return the file that deltas, one behind the other, make of the one that is held.

    Raises DataError if they are malformed, longer than the file itself, or lead to another one than `sha256`.
    """
    if len(deltas) > len(held):
        raise DataError(f"deltas of {len(deltas)} bytes are longer than the model of {len(held)}")
    vector, _ = read_model(held)
    for delta in split_deltas(deltas):
        vector = apply_delta(vector, delta)
    file = rewrite_model(held, vector)
    if digest(file) != sha256:
        raise DataError(f"the deltas lead to another model than {sha256.hex()[:16]}")
    return file


def require_final(signed: SignedRecord, info: FederationInfo, coordinator: bytes) -> None:
    """Return if the record of the last round, signed with the coordinator's key, says that this model came out of it.

    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    try:
        signed.check(coordinator)
    except ProtocolError as error:
        raise PeerProtocolError(COORDINATOR, "the record of the last round is not signed with its key") from error
    if (signed.record.round, signed.record.model) != (info.round, info.model):
        raise PeerProtocolError(COORDINATOR, "its final model is not the one in the record of the last round")
