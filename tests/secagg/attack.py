"""What attacks on `pairwise` are made of: a network that lies in one place, and a fresh honest participant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ridotto.core.machine import Envelope
from ridotto.core.rng import insecure_seeded_rng
from ridotto.secagg.pairwise.participant import PairwiseParticipant
from ridotto.secagg.session import Session
from tests.conformance.test_sums import kind_of
from tests.conformance.world import World, identity, make_vector

Lie = Callable[[Envelope], Envelope | None]


def lying(
    kind: str, lie: Lie, *, to: str | None = None, sender: str | None = None
) -> Callable[[Envelope], list[Envelope]]:
    """Return a network in which one kind of message, to or from somebody, is changed or (None) lost."""

    def tamper(envelope: Envelope) -> list[Envelope]:
        meant = (to is None or envelope.to == to) and (sender is None or envelope.sender == sender)
        if kind_of(envelope) != kind or not meant:
            return [envelope]
        other = lie(envelope)
        return [] if other is None else [other]

    return tamper


def assert_exact(world: World, included: tuple[str, ...]) -> None:
    np.testing.assert_array_equal(world.opened_sum(), world.total(included))


def participant(session: Session, index: int) -> PairwiseParticipant:
    name = session.members[index].name
    return PairwiseParticipant(
        session, name, identity(name), make_vector(session, index), insecure_seeded_rng(1).child(index)
    )
