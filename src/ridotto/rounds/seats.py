"""One device in two roles: a participant that was drawn to have a seat on its session's committee.

Between two machines of a round there is one channel for each device, so the coordinator's half turns names of seats
into names of devices and back, by the kind of a message; a device's half hands what comes to the role that it is for.
"""

from __future__ import annotations

from collections.abc import Iterable

from ridotto.core.machine import COORDINATOR, SELF, Effect, Finish, Machine, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.secagg.committee_roles.drawn import (
    device_of,
    drawn_roster,
    name_in_seat,
    require_drawn,
    seat_of_device,
)
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.committee_roles.roster import seat_of
from ridotto.secagg.protocols import SumProtocol
from ridotto.secagg.session import CommitteeSession, Session


def role_of(protocol: SumProtocol, session: Session, device: str, message: Message) -> str:
    """Return the name under which a session's machine knows who sent this message."""
    return name_in_seat(session, device) if type(message) in protocol.of_members else device


def roles_of(session: Session, device: str) -> tuple[str, ...]:
    """Return the names that a device has in its session, that of its seat first."""
    seat = seat_of_device(session, device) if isinstance(session, CommitteeSession) else None
    return (device,) if seat is None else tuple(dict.fromkeys((seat, device)))


def to_devices(effects: Iterable[Effect]) -> list[Effect]:
    """Address what goes to seats to their devices; what is said to both roles of a device at once is said once."""
    passed: list[Effect] = []
    said: set[tuple[str, int]] = set()
    for effect in effects:
        if not isinstance(effect, Send):
            passed.append(effect)
            continue
        device, message = device_of(effect.to), effect.message
        if (device, id(message)) not in said:
            said.add((device, id(message)))
            passed.append(Send(device, message, effect.attachment))
    return passed


class Roles:
    """Host both roles of a device in one session: the seat, if it was drawn, and the participant, once it has a vector.

    serving: randomness of the seat's machine, fresh for every session and never restored; None for a device that does
    not serve, because it was started again in the middle: its seat is lost for this session.
    """

    def __init__(
        self, protocol: SumProtocol, session: Session, me: str, identity: IdentityKey, serving: Rng | None
    ) -> None:
        self._of_committees = bool(protocol.of_members)
        self._is_serving = serving is not None
        self._seat = None if serving is None else protocol.member(session, me, identity, serving)
        self._own = _place(session, me) if self._of_committees else None
        self._sum: Machine | None = None
        self._book: MemberBook | None = None

    @property
    def has_sum(self) -> bool:
        """Tell whether there is a vector."""
        return self._sum is not None

    def start(self, now: float) -> list[Effect]:
        """Begin to serve."""
        return [] if self._seat is None else without_finish(self._seat.start(now))

    def begin_sum(self, machine: Machine, now: float) -> list[Effect]:
        """Take up the participant's machine, and tell it what came before there was a vector."""
        self._sum = machine
        effects = without_finish(machine.start(now))
        if self._book is not None:
            effects += without_finish(machine.receive(COORDINATOR, self._book, now))
        return effects

    def receive(self, message: Message, now: float) -> list[Effect]:
        """Take one of the coordinator's messages for either role.

        Raises PeerProtocolError if it is for none, or the one that it is for refuses it.
        """
        effects: list[Effect] = []
        if self._is_for_seat(message):
            if self._seat is not None:
                effects = without_finish(self._seat.receive(COORDINATOR, message, now))
            elif self._is_serving:
                raise PeerProtocolError(COORDINATOR, f"{type(message).__name__} came to somebody without a seat")
            if not isinstance(message, MemberBook):
                return effects
        if self._sum is not None:
            return [*effects, *without_finish(self._sum.receive(COORDINATOR, message, now))]
        if not isinstance(message, MemberBook) or not self._of_committees or self._book is not None:
            raise PeerProtocolError(COORDINATOR, f"{type(message).__name__} came before there was an update")
        self._book = message
        return effects

    def resume(self, message: Message, now: float) -> list[Effect]:
        """Take the result of a task of the participant's machine."""
        if self._sum is None:
            raise LocalProtocolError("a task of the sum was answered before there was an update")
        return without_finish(self._sum.receive(SELF, message, now))

    def _is_for_seat(self, message: Message) -> bool:
        """Tell whether a message is for the seat; a book that does not have it says that its key came too late."""
        if not self._of_committees:
            return False
        if isinstance(message, MemberBook):
            return self._seat is not None and any(entry.seat == self._own for entry in message.entries)
        return True


def without_finish(effects: Iterable[Effect]) -> list[Effect]:
    """Drop the end of a sum: the round ends with `Closed`."""
    return [effect for effect in effects if not isinstance(effect, Finish)]


def _place(session: Session, device: str) -> int | None:
    """Return which seat a device has, None if it has none."""
    name = seat_of_device(session, device)
    return None if name is None else seat_of(drawn_roster(require_drawn(session)), name)
