"""The secure sum with slots of replicas: what it costs a participant, a committee member and the coordinator."""

from __future__ import annotations

from functools import partial

import numpy as np

from bench.lattice import line, median
from bench.measure import Bar, Line, Lines, in_turn
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
from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Send
from ridotto.core.packing import pack
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec, digest
from ridotto.crypto.seal import ExchangeKey, IdentityKey
from ridotto.secagg.committee import CommitteeMember, CommitteeParticipant, CommitteeSetup
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_LABEL,
    commit_seed,
    contribution_statement,
    parcel_info,
)
from ridotto.secagg.committee.masks import FOLDED_AT_ONCE, MaskedSum, sum_masks
from ridotto.secagg.committee.messages import MASK_MESSAGES, SeedParcel, SeedParcels
from ridotto.secagg.committee.setup import deal
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import Included, MemberBook
from ridotto.secagg.committee_roles.seals import SEALS, Seal
from ridotto.secagg.session import Member

CODEC = Codec(*MASK_MESSAGES, attachment_limit=1 << 26)
SLOTS, REPLICAS, CORRUPT = 2, 3, 1
LENGTH, BITS = 1_000_000, 32


def make_setup(length: int, bits: int, people: Keys, committee: Keys, seal: Seal = "x25519") -> CommitteeSetup:
    session, pool = make_session("committee", length, bits, people), members_of(committee)
    roster = choose(pool, b"b" * 32, SLOTS * REPLICAS, CORRUPT)
    return CommitteeSetup(session, roster, deal(roster, SLOTS), 7, seal=seal)


def lines(quick: bool) -> Lines:
    people, committee = identities("p", PARTICIPANTS), identities("m", SLOTS * REPLICAS)
    yield from client_lines(people, committee, 5 if quick else 15)
    for seal in SEALS:
        yield from member_lines(people, committee, seal, 3 if quick else 5)
    yield from fold_lines(11 if quick else 51)


def client_lines(people: Keys, committee: Keys, repeats: int) -> Lines:
    cases: tuple[tuple[int, int, Seal], ...] = (
        (100_000, 32, "x25519"),
        (LENGTH, 20, "x25519"),
        (LENGTH, BITS, "x25519"),
        (LENGTH, BITS, "hybrid"),
    )
    for length, bits, seal in cases:
        setup = make_setup(length, bits, people, committee, seal)
        book = make_book(setup, committee, member_secrets(seal, SLOTS * REPLICAS))
        vector, pool = np.zeros(length, container(bits)), setup.roster.members

        def contribute(
            setup: CommitteeSetup = setup,
            book: MemberBook = book,
            vector: IntVector = vector,
            pool: tuple[Member, ...] = pool,
        ) -> Send:
            forget_checks()
            rng = insecure_seeded_rng(1)
            return spoken(CommitteeParticipant(setup, "p0000", people["p0000"], vector, rng, pool), book)

        main = (length, bits) == (LENGTH, BITS)
        what = f"d = {length:,}, {bits} bits, {SLOTS} slots of {REPLICAS}{named(seal)}"
        bar = Bar("at most", 5) if main else None
        yield line(f"committee: all that a participant does, {what}", contribute, repeats, bar=bar)
        send = contribute()
        upload = (len(CODEC.header(send.message)) + setup.size) / 1e6
        bar = Bar("at most", 4.1) if main else None
        yield Line(what=f"committee: upload, {what}", ours=upload, unit="MB", bar=bar)


def member_lines(people: Keys, committee: Keys, seal: Seal, repeats: int) -> Lines:
    """Measure one replica with 1,000 participants, from its parcels to its release."""
    setup, keys = make_setup(LENGTH, BITS, people, committee, seal), member_secrets(seal, SLOTS * REPLICAS)
    book = make_book(setup, committee, keys)
    root = book_root(setup.context, book)
    parcels = tuple(make_parcel(setup, root, place, key, keys[0].public) for place, key in enumerate(people.values()))
    delivery, included = SeedParcels(setup.sid, parcels), Included(setup.sid, tuple(range(PARTICIPANTS)))
    acks = make_acks(setup, committee, book, {parcel.participant: parcel.digest for parcel in parcels})

    def work() -> list[Effect]:
        forget_checks()
        machine = CommitteeMember(setup, "m0000", committee["m0000"], insecure_seeded_rng(0))
        sent = [*machine.start(0.0)]
        for message in (book, delivery, included, acks):
            effects = machine.receive(COORDINATOR, message, 0.0)
            sent += effects
        assert isinstance(effects[0], Do)
        return [*sent, *machine.receive(SELF, sum_masks(effects[0].task), 0.0)]

    cpu, wall = median(work, repeats)
    what = f"n = {PARTICIPANTS:,}, d = {LENGTH:,}{named(seal)}"
    yield Line(what=f"committee: all that a replica does, {what}", ours=cpu, unit="s", wall=wall, bar=Bar("at most", 1))
    down = sum(len(CODEC.header(message)) for message in (book, delivery, included, acks))
    yield Line(what=f"committee: what a replica receives, {what}", ours=down / 1e6, unit="MB")
    sends = [effect for effect in work() if isinstance(effect, Send)]
    up = sum(len(CODEC.encode(send.message, send.attachment)) for send in sends)
    yield Line(what=f"committee: what a replica sends, {what}", ours=up / 1e6, unit="MB")


def make_parcel(setup: CommitteeSetup, root: bytes, place: int, identity: IdentityKey, member: bytes) -> SeedParcel:
    rng = insecure_seeded_rng(place)
    exchange, fingerprint = ExchangeKey.generate(rng), digest(place.to_bytes(4, "big"))
    seeds = [rng.bytes(32) for _ in range(setup.count)]
    commitments = tuple(commit_seed(setup.context, place, slot, seed) for slot, seed in enumerate(seeds))
    statement = contribution_statement(setup.context, root, place, exchange.public, fingerprint, commitments)
    signature = identity.sign(CONTRIBUTION_CONTEXT, statement)
    info, seed = parcel_info(root, place, 0), seeds[setup.slots[0]]
    sealed = sealed_parcel(setup, PARCEL_LABEL, info, exchange, member, seed, fingerprint)
    return SeedParcel(place, fingerprint, exchange.public, commitments, signature, sealed)


def fold_lines(repeats: int) -> Lines:
    for bits in (20, BITS):
        total = MaskedSum(LENGTH, bits, lambda vector: (0, True))
        # Not zeros: their pages would all be one page, which is in the cache.
        other = np.ones(LENGTH, container(bits))
        packed = [bytes(pack(other, bits)) for _ in range(FOLDED_AT_ONCE)]

        def fold(total: MaskedSum = total, packed: list[bytes] = packed) -> None:
            for place, one in enumerate(packed):
                total.fold(f"p{place}", one)

        floor = partial(np.add, other, other, out=other.copy())
        times = in_turn(fold, floor, repeats)
        yield Line(
            what=f"committee: fold one vector, d = {LENGTH:,}, {bits} bits",
            ours=times.ours / FOLDED_AT_ONCE * 1e3,
            floor=times.floor * 1e3,
            wall=times.wall / FOLDED_AT_ONCE,
            unit="ms",
            bar=Bar("at most", 0.15) if bits == BITS else None,
            notes=("floor: np.add of the same elements",) if bits == BITS else (),
        )
