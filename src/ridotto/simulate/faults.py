"""Faults to put into a simulation, as plain data, and the network that carries them out.

    DropOut          a client leaves before it sends a certain message, or before it hears of the round
    RandomDropOuts   every client leaves with some probability, anew in every round
    Slow             what a client sends takes its time
    Garbage          a client sends something wrong instead of a certain message
    Duplicate        a client sends a certain message twice

A client that left stays silent for the rest of the round and is back in the next one. Messages bear the names of their
classes (`secagg.messages`); "Announce" stands for leaving while training, in every protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.core.rng import Rng, SecretRng
from ridotto.core.wire import Attached, Message, digest
from ridotto.errors import ConfigError, LocalProtocolError
from ridotto.rounds.plan import Plan
from ridotto.secagg.committee_roles.messages import Ack, Checked, MemberKey
from ridotto.secagg.messages import LARGEST_GROUP, Consistency, PublicKeys, SealedShares, Unmask
from ridotto.secagg.oneshot.messages import Release
from ridotto.simulate.clients import ClientId, Clients

ANNOUNCE = "Announce"
"""The message that opens a round. Who leaves before it trains for nobody, so the simulator does not train it."""

SENT = {
    "ideal": ("Plain",),
    "pairwise": ("PublicKeys", "SealedShares", "Masked", "Consistency", "Unmask"),
    "oneshot": ("MemberKey", "Contribution", "Checked", "Ack", "Release"),
    "committee": ("MaskedVector",),
}
"""What participants send in each protocol, in order. In `oneshot` only those with a seat on the committee send all of
them, the others their contribution."""

FIRST = {"ideal": "Plain", "pairwise": "PublicKeys", "oneshot": "Contribution", "committee": "MaskedVector"}
"""The first message of every participant that comes after the announcement."""


def sent_in(plan: Plan) -> tuple[str, ...]:
    """Return what participants of a plan send, in order: the messages that faults can name. Helpers make none."""
    return SENT[plan.protocol_name] if plan.helpers is None else (FIRST[plan.protocol_name],)


@dataclass(frozen=True)
class DropOut:
    """Let a client leave a round before it sends `before`, or before training (`"Announce"`).

    round: None means every round.
    """

    client: ClientId
    round: int | None = None
    before: str = ANNOUNCE


@dataclass(frozen=True)
class RandomDropOuts:
    """Let every client of every cohort leave with this probability, independently; the simulation's seed decides."""

    probability: float
    before: str = ANNOUNCE


@dataclass(frozen=True)
class Slow:
    """Let everything that a client sends arrive `delay_s` virtual seconds later. round: None means every round."""

    client: ClientId
    delay_s: float
    round: int | None = None


@dataclass(frozen=True)
class Garbage:
    """Let a client send something wrong instead of a message: a shorter vector, a false signature, forged shares.

    round: None means every round. The wrong message is well-formed, so that it reaches the coordinator's machine.
    """

    client: ClientId
    round: int | None
    instead_of: str


@dataclass(frozen=True)
class Duplicate:
    """Let a client send a message twice, which must change nothing. round: None means every round."""

    client: ClientId
    round: int | None
    of: str


Fault = DropOut | RandomDropOuts | Slow | Garbage | Duplicate
"""What can go wrong in a simulation on purpose."""


def read_faults(faults: Iterable[Fault], clients: Clients, plan: Plan) -> tuple[Fault, ...]:
    """Check a user's faults and return them with every client by its name.

    Raises ConfigError for an unknown client, a message that participants of the plan's protocol do not send, a
    probability outside 0 to 1, or a negative delay.
    """
    return tuple(_read(fault, clients, sent_in(plan)) for fault in faults)


class FaultyNetwork:
    """Be the link between the machines of one round: carry the faults of that round out.

    faults: as `read_faults` returned them. members: names of the round's cohort. rng: decides random drop-outs, by
    fault and name, so that one more fault changes nobody else's luck.
    """

    def __init__(self, faults: Sequence[Fault], number: int, members: Iterable[str], rng: SecretRng) -> None:
        self._gone: set[str] = set()
        self._faults = {
            name: [fault for place, fault in enumerate(faults) if _strikes(fault, name, number, rng.child(place, name))]
            for name in members
        }

    def leaves(self, client: str, before: str) -> bool:
        """Tell whether a client leaves before this message."""
        return any(
            isinstance(fault, DropOut | RandomDropOuts) and fault.before == before for fault in self._faults[client]
        )

    def departures(self, kinds: Sequence[str]) -> dict[str, str]:
        """Return name -> the first of these messages, in their order, before which a client leaves."""
        return {client: kind for client in self._faults for kind in reversed(kinds) if self.leaves(client, kind)}

    def __call__(self, envelope: Envelope) -> Iterable[Envelope]:
        """Deliver an envelope as the faults will have it: not at all, once or twice, changed, later."""
        outgoing = envelope.to == COORDINATOR
        client, kind = envelope.sender if outgoing else envelope.to, type(envelope.message).__name__
        if client not in self._faults:
            return [envelope]  # a helper's
        faults = self._faults[client]
        if self.leaves(client, kind):
            self._gone.add(client)
        if client in self._gone:
            return []
        return _disturbed(envelope, kind, faults) if outgoing else [envelope]


def forge(envelope: Envelope) -> Envelope:
    """Return the envelope with a well-formed but wrong message of the same type."""
    message = envelope.message
    match message:
        case Attached() if envelope.attachment is not None:
            shorter = bytes(envelope.attachment)[:-1]
            named = msgspec.structs.replace(message, digest=digest(shorter), size=len(shorter))
            return replace(envelope, message=named, attachment=shorter)
        case PublicKeys() | Consistency() | MemberKey() | Ack() | Release():
            return replace(envelope, message=msgspec.structs.replace(message, signature=bytes(64)))
        case SealedShares(boxes=boxes):
            return replace(envelope, message=msgspec.structs.replace(message, boxes=tuple(map(_zeros, boxes))))
        case Unmask(shares=shares):
            forged = tuple(msgspec.structs.replace(share, share=_zeros(share.share)) for share in shares)
            return replace(envelope, message=msgspec.structs.replace(message, shares=forged))
        case Checked():
            return replace(envelope, message=msgspec.structs.replace(message, bad=(LARGEST_GROUP - 1,)))
        case Message():
            raise LocalProtocolError(f"no garbage is known for {type(message).__name__}")


def _zeros(original: bytes) -> bytes:
    return bytes(len(original))


def _disturbed(envelope: Envelope, kind: str, faults: Sequence[Fault]) -> list[Envelope]:
    copies = [envelope]
    for fault in faults:
        match fault:
            case Garbage(instead_of=named) if named == kind:
                copies = [forge(copy) for copy in copies]
            case Duplicate(of=named) if named == kind:
                copies = copies * 2
            case Slow(delay_s=delay_s):
                copies = [replace(copy, at=copy.at + delay_s) for copy in copies]
    return copies


def _strikes(fault: Fault, name: str, number: int, rng: Rng) -> bool:
    """Tell whether a fault strikes this client in this round."""
    if isinstance(fault, RandomDropOuts):
        # 53 bits make a float64 in [0, 1) exactly.
        return int.from_bytes(rng.bytes(8), "little") >> 11 < fault.probability * 2**53
    return fault.client == name and fault.round in (None, number)


def _read(fault: Fault, clients: Clients, sent: Sequence[str]) -> Fault:
    match fault:
        case RandomDropOuts(probability=probability, before=before):
            _check_kind(fault, before, (ANNOUNCE, *sent))
            if not 0 <= probability <= 1:
                raise ConfigError(f"the probability of a drop-out is 0 to 1, not {probability}")
            return fault
        case DropOut(before=before):
            _check_kind(fault, before, (ANNOUNCE, *sent))
        case Garbage(instead_of=kind) | Duplicate(of=kind):
            _check_kind(fault, kind, sent)
        case Slow(delay_s=delay_s) if not (math.isfinite(delay_s) and delay_s >= 0):
            raise ConfigError(f"a delay is a number of seconds of at least 0, not {delay_s}")
        case Slow():
            pass
        case _:
            raise ConfigError(f"a fault is one of the classes of ridotto.simulate.faults, not {type(fault).__name__}")
    return replace(fault, client=clients.names[clients.position(fault.client)])


def _check_kind(fault: Fault, kind: str, known: Sequence[str]) -> None:
    if kind not in known:
        raise ConfigError(
            f"{type(fault).__name__} names the message {kind!r}; with this plan a participant can be struck at "
            f"{', '.join(known)}"
        )
