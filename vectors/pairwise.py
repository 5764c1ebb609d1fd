"""Vectors of `pairwise`: sessions with drop-outs, over the complete graph and a sparse one, and refusals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import COORDINATOR, Envelope, Machine
from ridotto.core.rng import SEED_BYTES, SecretRng
from ridotto.core.wire import Codec, Message, digest
from ridotto.crypto.seal import ExchangeKey
from ridotto.secagg.lanes import Lanes
from ridotto.secagg.messages import PAIRWISE_MESSAGES, Consistency, Masked
from ridotto.secagg.pairwise import PairwiseCoordinator, PairwiseParticipant
from ridotto.secagg.pairwise.group import Group, form_group
from ridotto.secagg.session import Session, Timeouts, session_id
from vectors.common import identity_of, keys, member, rng_of
from vectors.opened import OpenedSum
from vectors.pairwise_refusals import refusals
from vectors.pairwise_steps import Secrets, derivations
from vectors.recording import Recording, splice

ENTRIES = 5


@dataclass(frozen=True)
class Case:
    """Describe a recorded session of members p0, p1, ...

    silent: says nothing at all. leaves: name -> the first message that it does not send any more.
    """

    count: int
    bits: int
    corrupt: int
    neighbours: int
    threshold: int
    silent: str
    leaves: tuple[tuple[str, type[Message]], ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return all members."""
        return tuple(f"p{index}" for index in range(self.count))

    @cached_property
    def lanes(self) -> Lanes:
        """Return the lanes behind the entries."""
        return Lanes(self.bits, self.count, (1000,))

    @cached_property
    def session(self) -> Session:
        """Return the session."""
        return Session(
            protocol="pairwise",
            plan=digest(b"plan"),
            model=digest(b"model"),
            nonce=digest(b"nonce"),
            round=1,
            shard=0,
            members=tuple(member(name) for name in self.names),
            length=ENTRIES + self.lanes.size,
            bits=self.bits,
            minimum=3,
            corrupt=self.corrupt,
            neighbours=self.neighbours,
            threshold=self.threshold,
            attempt=1,
        )

    def vector_of(self, name: str) -> IntVector:
        """Return (1, -2, 3, -4, 5) times the participant's place from 1, and its lanes with weight ten times that."""
        place = self.names.index(name) + 1
        entries = [place * value % 2**self.bits for value in (1, -2, 3, -4, 5)]
        return np.concatenate([np.array(entries, container(self.bits)), self.lanes.write([10 * place])])

    def machine(self, name: str) -> Machine:
        """Return a party as it is before the session."""
        if name == COORDINATOR:
            return PairwiseCoordinator(self.session, Timeouts(100, 10))
        return PairwiseParticipant(self.session, name, identity_of(name), self.vector_of(name), rng_of(name))

    def secrets_of(self, name: str) -> Secrets:
        """Return what a participant draws first, as its machine does: two private keys and its seed."""
        label = session_id(self.session).hex(), digest(self.vector_of(name).data).hex()
        rng = SecretRng(rng_of(name).bytes(SEED_BYTES)).child(*label)
        return Secrets(ExchangeKey.generate(rng), ExchangeKey.generate(rng), rng.bytes(SEED_BYTES))

    def loses(self, envelope: Envelope) -> bool:
        """Tell whether the sender has left before this message."""
        return any(envelope.sender == name and isinstance(envelope.message, kind) for name, kind in self.leaves)


COMPLETE = Case(7, 21, 1, 0, 0, "p2", (("p4", Masked), ("p5", Consistency)))
"""Seven members. p2 never answers, p4 leaves before its vector and p5 after it: both kinds of share are needed."""

SPARSE = Case(7, 12, 0, 4, 3, "", (("p4", Masked),))
"""Seven members on a circle with four neighbours each. p4 leaves before its vector."""


@cache
def record(case: Case) -> tuple[Recording, OpenedSum]:
    """Run the session."""
    total = OpenedSum(case.session, case.lanes)
    recording = Recording(Codec(*PAIRWISE_MESSAGES, attachment_limit=1 << 16), case.machine, case.loses)
    recording.run((COORDINATOR, *(name for name in case.names if name != case.silent)), total.perform)
    return recording, total


def build(case: Case = COMPLETE) -> dict[str, object]:
    """Return everything that is in pairwise.json, or in pairwise-sparse.json."""
    recording, total = record(case)
    group, included = group_of(case), recording.finished[COORDINATOR].result.included
    secrets = {name: case.secrets_of(name) for name in case.names if name != case.silent}
    return {
        "protocol": "pairwise",
        "page": "docs/protocols/pairwise.md",
        "private_keys": keys(case.names),
        "session": msgspec.msgpack.encode(case.session).hex(),
        "sid": session_id(case.session).hex(),
        "vectors": {name: case.vector_of(name).tolist() for name in case.names},
        "secrets": {name: one.shown() for name, one in secrets.items()},
        "book": group.book.hex(),
        "holders": {name: group.holders[index] for index, name in enumerate(case.names) if index in group.holders},
        "threshold": group.threshold,
        "included": list(included),
        "lost": dict(recording.finished[COORDINATOR].result.lost),
        "derivations": derivations(case.session, group, secrets, case.vector_of("p0"), recording, total.masks),
        "messages": recording.messages(),
        "sum": total.total.tolist(),
        "complaint": complaint(recording),
        "refusals": refusals(recording, case is COMPLETE),
    }


def complaint(recording: Recording) -> dict[str, object]:
    """Return what p0 says at the end if its second box does not open: that is not refused, but told."""
    numbers = [recording.find(kind, to="p0") for kind in ("Delivery", "Survivors", "Evidence")]
    machine, now = recording.replayed("p0", numbers[0])
    honest: Any = recording.sent[numbers[0]][0].message
    first, second, *rest = honest.boxes
    spoilt = replace(second, sealed=second.sealed[:-1] + bytes([second.sealed[-1] ^ 1]))
    machine.receive(COORDINATOR, replace(honest, boxes=(first, spoilt, *rest)), now)
    machine.receive(COORDINATOR, recording.sent[numbers[1]][0].message, now)
    answer: Any = machine.receive(COORDINATOR, recording.sent[numbers[2]][0].message, now)[0]
    lie = recording.codec.header(replace(honest, boxes=(first, spoilt, *rest)))
    place = {"message": numbers[0], "to": "p0", **splice(recording.codec.header(honest), lie)}
    return {**place, "answer": recording.codec.header(answer.message).hex()}


def group_of(case: Case) -> Group:
    """Return the graph that the recorded key book gives."""
    recording = record(case)[0]
    book: Any = recording.sent[recording.find("KeyBook")][0].message
    return form_group(case.session, book.sid, book.entries)
