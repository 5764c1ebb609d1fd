"""The list of protocols: the one place where a new one is added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import Effect, Machine
from ridotto.core.rng import Rng
from ridotto.core.wire import Message
from ridotto.crypto.seal import IdentityKey
from ridotto.secagg.committee import drawn as committee
from ridotto.secagg.committee.messages import MASK_MESSAGES, MaskSum
from ridotto.secagg.committee_roles.messages import Ack, Checked, MemberKey
from ridotto.secagg.ideal import IdealCoordinator, IdealParticipant
from ridotto.secagg.messages import IDEAL_MESSAGES, PAIRWISE_MESSAGES
from ridotto.secagg.oneshot import drawn as oneshot
from ridotto.secagg.oneshot.messages import ONESHOT_MESSAGES, Release
from ridotto.secagg.pairwise import PairwiseCoordinator, PairwiseParticipant
from ridotto.secagg.session import Session, Timeouts


class SumCoordinator(Machine, Protocol):
    """A coordinator's half: a machine that can be told that a member will not answer."""

    def leave(self, name: str, why: str, now: float) -> list[Effect]:
        """Stop waiting for a member, and remember why."""


@dataclass(frozen=True)
class SumProtocol:
    """Name a protocol's two halves and its messages.

    participant: (session, own name, identity key, vector, rng) -> machine; the vector is overwritten.
    coordinator: (session, timeouts) -> machine, which finishes with a `SessionResult`.
    member: (session, own name, identity key, rng) -> the machine of a device's seat on the committee, None if it has
    none; its rng is fresh and never restored. of_members: what such machines send; as their sender, the coordinator's
    machine expects the seat's name (`committee_roles.drawn.name_in_seat`).
    """

    messages: tuple[type[Message], ...]
    participant: Callable[[Session, str, IdentityKey, IntVector, Rng], Machine]
    coordinator: Callable[[Session, Timeouts], SumCoordinator]
    member: Callable[[Session, str, IdentityKey, Rng], Machine | None] = lambda *_: None
    of_members: tuple[type[Message], ...] = ()


PROTOCOLS: dict[str, SumProtocol] = {
    "ideal": SumProtocol(IDEAL_MESSAGES, IdealParticipant, IdealCoordinator),
    "pairwise": SumProtocol(PAIRWISE_MESSAGES, PairwiseParticipant, PairwiseCoordinator),
    "oneshot": SumProtocol(
        ONESHOT_MESSAGES,
        oneshot.drawn_participant,
        oneshot.drawn_coordinator,
        oneshot.drawn_member,
        (MemberKey, Checked, Ack, Release),
    ),
    "committee": SumProtocol(
        MASK_MESSAGES,
        committee.drawn_participant,
        committee.drawn_coordinator,
        committee.drawn_member,
        (MemberKey, Checked, Ack, MaskSum),
    ),
}
"""By name, as plans and sessions spell it."""

_SPARSE_IDEAL = SumProtocol(
    IDEAL_MESSAGES, partial(IdealParticipant, sparse=True), partial(IdealCoordinator, sparse=True)
)


def sum_protocol(name: str, sparse: bool = False) -> SumProtocol:
    """Return a protocol by its name. sparse: vectors are mostly zeros, which `ideal` then leaves out."""
    return _SPARSE_IDEAL if sparse and name == "ideal" else PROTOCOLS[name]
