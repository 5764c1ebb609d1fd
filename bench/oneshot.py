"""The secure sum of one message: what it costs a participant, a committee member and the coordinator."""

from __future__ import annotations

from functools import partial

import numpy as np

from bench.lattice import line, median
from bench.measure import Bar, Line, Lines
from bench.seats import (
    PARTICIPANTS,
    Keys,
    forget_checks,
    identities,
    make_acks,
    make_book,
    make_session,
    member_secrets,
    members_of,
    named,
    sealed_parcel,
    spoken,
)
from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import COORDINATOR, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec, digest
from ridotto.crypto.lattice.kahe import generate_key
from ridotto.crypto.lattice.loops import LOOPS, Loops, PlainLoops
from ridotto.crypto.lattice.packed_shamir import share_key
from ridotto.crypto.seal import ExchangeKey, IdentityKey
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import Included, MemberBook
from ridotto.secagg.committee_roles.seals import SEALS, Seal
from ridotto.secagg.oneshot import OneshotMember, OneshotParticipant, OneshotSetup
from ridotto.secagg.oneshot.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_LABEL,
    contribution_statement,
    parcel_info,
)
from ridotto.secagg.oneshot.messages import ONESHOT_MESSAGES, Parcel, Parcels
from ridotto.secagg.session import Member

CODEC = Codec(*ONESHOT_MESSAGES, attachment_limit=1 << 26)
COMMITTEE = 64
SHARING = {64: (24, 21), 128: (48, 41)}
"""Corrupt members and secrets of one polynomial, by the size of a committee."""


def make_setup(length: int, bits: int, people: Keys, committee: Keys, seal: Seal = "x25519") -> OneshotSetup:
    session, pool = make_session("oneshot", length, bits, people), members_of(committee)
    corrupt, pack = SHARING[len(pool)]
    return OneshotSetup(session, choose(pool, b"b" * 32, len(pool), corrupt), pack, 7, seal)


def lines(quick: bool) -> Lines:
    LOOPS.load()
    people = identities("p", PARTICIPANTS)
    yield from client_lines(people, 5 if quick else 9)
    for seal in SEALS:
        yield from member_lines(people, seal, 3 if quick else 5)


def client_lines(people: Keys, repeats: int) -> Lines:
    cases: tuple[tuple[int, int, int, Seal], ...] = (
        (100_000, 21, 64, "x25519"),
        (1_000_000, 21, 64, "x25519"),
        (1_000_000, 28, 64, "x25519"),
        (1_000_000, 21, 64, "hybrid"),
        (1_000_000, 21, 128, "x25519"),
        (1_000_000, 21, 128, "hybrid"),
    )
    for length, bits, seats, seal in cases:
        committee = identities("m", seats)
        setup = make_setup(length, bits, people, committee, seal)
        book = make_book(setup, committee, member_secrets(seal, seats))
        vector, pool = np.zeros(length, container(bits)), setup.roster.members

        def contribute(
            setup: OneshotSetup = setup,
            book: MemberBook = book,
            vector: IntVector = vector,
            pool: tuple[Member, ...] = pool,
            loops: Loops = LOOPS,
        ) -> Send:
            forget_checks()
            rng = insecure_seeded_rng(1)
            return spoken(OneshotParticipant(setup, "p0000", people["p0000"], vector, rng, pool, loops), book)

        many = "" if seats == COMMITTEE else f", C = {seats}"
        what = f"d = {length:,}, {setup.shape.fields} x {bits}{many}{named(seal)}"
        main = (length, bits, seats) == (1_000_000, 21, COMMITTEE)
        yield line(
            f"oneshot: all that a participant does, {what}",
            contribute,
            repeats,
            bar=Bar("at most", 30) if main else None,
        )
        if main and seal == "x25519":
            plain = partial(contribute, loops=PlainLoops())
            yield line(f"oneshot: the same without numba, {what}", plain, 3)
        send = contribute()
        upload = (len(CODEC.header(send.message)) + setup.shape.size) / 1e6
        bar = Bar("at most", 3.2) if main else None
        yield Line(what=f"oneshot: upload, {what}", ours=upload, unit="MB", bar=bar)


def member_lines(people: Keys, seal: Seal, repeats: int) -> Lines:
    """Measure one member among 64 with 1,000 participants, from its parcels to its release."""
    committee, keys = identities("m", COMMITTEE), member_secrets(seal, COMMITTEE)
    setup = make_setup(1_000_000, 21, people, committee, seal)
    book = make_book(setup, committee, keys)
    root = book_root(setup.context, book)
    parcels = tuple(make_parcel(setup, root, place, key, keys[0].public) for place, key in enumerate(people.values()))
    delivery, included = Parcels(setup.sid, parcels), Included(setup.sid, tuple(range(PARTICIPANTS)))
    acks = make_acks(setup, committee, book, {parcel.participant: parcel.digest for parcel in parcels})

    def work() -> int:
        forget_checks()
        machine = OneshotMember(setup, "m0000", committee["m0000"], insecure_seeded_rng(0))
        sent = [*machine.start(0.0)]
        for message in (book, delivery, included, acks):
            sent += machine.receive(COORDINATOR, message, 0.0)
        return sum(len(CODEC.header(effect.message)) for effect in sent if isinstance(effect, Send))

    cpu, wall = median(work, repeats)
    what, main = f"n = {PARTICIPANTS:,}, any d{named(seal)}", seal == "x25519"
    yield Line(
        what=f"oneshot: all that a member does, {what}",
        ours=cpu,
        unit="s",
        wall=wall,
        bar=Bar("at most", 0.2) if main else None,
    )
    down = sum(len(CODEC.header(message)) for message in (book, delivery, included, acks)) / 1e6
    yield Line(
        what=f"oneshot: what a member sends and receives, {what}",
        ours=down + work() / 1e6,
        unit="MB",
        bar=Bar("at most", 2.0) if main else None,
    )


def make_parcel(setup: OneshotSetup, root: bytes, place: int, identity: IdentityKey, member: bytes) -> Parcel:
    rng = insecure_seeded_rng(place)
    key, exchange = generate_key(rng.bytes(32)), ExchangeKey.generate(rng)
    share, fingerprint = share_key(key, setup.sharing, rng.bytes(32))[0], digest(place.to_bytes(4, "big"))
    info = parcel_info(root, place, 0)
    parcel = sealed_parcel(setup, PARCEL_LABEL, info, exchange, member, share, fingerprint)
    statement = contribution_statement(setup.context, root, place, exchange.public, fingerprint)
    signature = identity.sign(CONTRIBUTION_CONTEXT, statement)
    return Parcel(place, fingerprint, exchange.public, signature, parcel)
