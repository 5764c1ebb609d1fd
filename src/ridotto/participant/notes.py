"""What a participant notes about its own contributions, so that it can check the receipts of its rounds.

A note is handed to a `Keeper` before the attempt that it is about is forgotten. The keeper lies above this layer
(`ridotto.trust.keep`), because to check a receipt means to say what it proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ridotto.core.wire import Attached, Message
from ridotto.errors import RefusedError
from ridotto.participant.events import Event, EventKind
from ridotto.rounds.inclusion import Contributed, Inclusion
from ridotto.rounds.messages import Announce, Closed
from ridotto.secagg.protocols import sum_protocol
from ridotto.secagg.session import Session, session_id


class NotThereError(RefusedError):
    """Report that the coordinator has no record, receipt or proof of what was asked for."""


class Source(Protocol):
    """Say where receipts and proofs come from: a `Client`."""

    def receipt(self, number: int, attempt: int) -> bytes:
        """Return the receipt of an attempt at round `number`. Raises NotThereError if there is none."""

    def proof(self, number: int, sid: bytes) -> Inclusion:
        """Return one's own proof. Raises NotThereError if there is none."""


class Keeper(Protocol):
    """Keep notes, and the receipts that were checked against them."""

    def note(self, own: Contributed) -> None:
        """Keep a note; when this returns it survives a kill. The same one may come twice."""

    def check(self, source: Source, coordinator: bytes, name: str, over: int) -> Iterable[tuple[Contributed, str]]:
        """Ask for receipt and proof of every note of `name` that was not checked yet; yield what they say in words.

        coordinator: its identity key. over: attempts below this number are over.
        Raises PeerProtocolError, blaming the coordinator, if something does not hold.
        """


class Notes:
    """Follow the open attempt of one participant. keeper: None for one that keeps no receipts."""

    def __init__(self, name: str, keeper: Keeper | None) -> None:
        self._name = name
        self._keeper = keeper
        self._session: Session | None = None
        self._contribution: bytes | None = None
        self._model: bytes | None = None

    def heard(self, message: Message) -> None:
        """Note which session is shown, and which model is said to come out."""
        # The machine refuses a second session, and the end of another one.
        match message:
            case Announce() if self._session is None:
                self._session = message.session
            case Closed() if self._session is not None and message.sid == session_id(self._session):
                self._model = message.model

    def said(self, message: Message) -> None:
        """Note what is sent, before it is."""
        if self._session is None or not isinstance(message, Attached):
            return
        # Seats on a committee send vectors too, which are no contributions.
        if type(message) not in sum_protocol(self._session.protocol).of_members:
            self._contribution = message.contribution

    def end(self, attempt: int) -> None:
        """Hand the note over, if anything was sent, and follow the next attempt."""
        if self._keeper is not None and self._session is not None and self._contribution is not None:
            model = None if self._model is None else self._model.hex()
            own = Contributed(
                name=self._name,
                attempt=attempt,
                session=self._session,
                contribution=self._contribution.hex(),
                model=model,
            )
            self._keeper.note(own)
        self._session = self._contribution = self._model = None

    def check(self, source: Source, coordinator: bytes, over: int) -> Iterator[Event]:
        """Check what can be checked by now, see `Keeper.check`."""
        if self._keeper is None:
            return
        for own, said in self._keeper.check(source, coordinator, self._name, over):
            yield Event(EventKind.RECEIPT, own.session.round, own.attempt, reason=said)
