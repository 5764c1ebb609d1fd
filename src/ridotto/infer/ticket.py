"""A ticket names a shared model, for clients other than its owner: who has it may ask, and learns no weights from it.

The name is 32 random bytes, which nobody guesses. The rest is public: architecture and encoding.
"""

from __future__ import annotations

import msgspec

from ridotto.core.wire import Bytes32
from ridotto.errors import DataError
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import Architecture
from ridotto.infer.messages import Encoded


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="ridotto", tag="infer ticket 1"):
    """Hold what a client must know of a model. model: its name, a secret between owner and clients."""

    model: Bytes32
    architecture: Encoded
    fixed: Fixed

    def encode(self) -> bytes:
        """Return the ticket as JSON."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> tuple[Ticket, Architecture]:
        """Read a ticket. Raises DataError if it is none."""
        try:
            ticket = msgspec.json.decode(data, type=Ticket)
            return ticket, Architecture.decode(ticket.architecture)
        except (msgspec.MsgspecError, UnicodeDecodeError, DataError) as error:
            raise DataError(f"this is no ticket of a shared model: {error}") from error

    def __repr__(self) -> str:
        return "Ticket(...)"
