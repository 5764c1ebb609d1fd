"""Sessions with a committee, as the benchmarks of their protocols need them: keys, books and acknowledgements."""

from __future__ import annotations

from collections.abc import Mapping

from ridotto.core.machine import COORDINATOR, SELF, Do, Machine, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto import kem
from ridotto.crypto.kem import KEM_PUBLIC_BYTES
from ridotto.crypto.seal import ExchangeKey, IdentityKey
from ridotto.secagg.committee_roles import keys, member
from ridotto.secagg.committee_roles.agreement import set_root, sign_ack
from ridotto.secagg.committee_roles.keys import book_root, signed_key
from ridotto.secagg.committee_roles.messages import Acks, MemberBook, MemberEntry, SeatVote
from ridotto.secagg.committee_roles.seals import MemberSecret, Purpose, Seal, encapsulate_all, parcel_seal
from ridotto.secagg.committee_roles.setup import SeatedSetup
from ridotto.secagg.committee_roles.tasks import Encapsulate
from ridotto.secagg.session import Member, Session

PARTICIPANTS = 1000

Keys = dict[str, IdentityKey]


def identities(prefix: str, count: int) -> Keys:
    rng = insecure_seeded_rng(1)
    return {f"{prefix}{i:04}": IdentityKey.generate(rng.child(prefix, i)) for i in range(count)}


def member_secrets(seal: Seal, count: int) -> list[MemberSecret]:
    return [MemberSecret(seal, insecure_seeded_rng(i)) for i in range(count)]


def members_of(people: Keys) -> tuple[Member, ...]:
    return tuple(Member(name, key.public) for name, key in people.items())


def make_session(protocol: str, length: int, bits: int, people: Keys) -> Session:
    return Session(
        protocol=protocol,
        plan=b"p" * 32,
        model=b"m" * 32,
        nonce=b"n" * 32,
        round=1,
        shard=0,
        members=members_of(people),
        length=length,
        bits=bits,
        minimum=100,
    )


def make_book(setup: SeatedSetup, committee: Keys, secrets: list[MemberSecret]) -> MemberBook:
    entries = []
    for seat, (identity, secret) in enumerate(zip(committee.values(), secrets, strict=True)):
        key = signed_key(identity, setup.sid, setup.context, seat, secret.public)
        entries.append(MemberEntry(seat, key.public, key.signature))
    return MemberBook(setup.sid, tuple(entries))


def named(seal: Seal) -> str:
    return "" if seal == "x25519" else f", {seal}"


def spoken(machine: Machine, book: MemberBook) -> Send:
    """Return what a participant answers to a book, its task included."""
    effects = machine.receive(COORDINATOR, book, 0.0)
    if isinstance(effects[0], Do):
        effects = machine.receive(SELF, encapsulate_all(effects[0].task), 0.0)
    assert isinstance(effects[0], Send)
    return effects[0]


def sealed_parcel(
    setup: SeatedSetup, label: str, info: bytes, exchange: ExchangeKey, public: bytes, secret: bytes, digest: bytes
) -> bytes:
    """Return one parcel for the member with this public key."""
    second = None
    if setup.seal == "hybrid":
        [second] = encapsulate_all(Encapsulate(setup.sid, digest, (public[:KEM_PUBLIC_BYTES],))).drawn
    purpose = Purpose(setup.context, label, info, exchange.public)
    return parcel_seal(exchange, public, purpose, second).seal(secret, digest)


def make_acks(setup: SeatedSetup, committee: Keys, book: MemberBook, digests: Mapping[int, bytes]) -> Acks:
    """Return everybody's acknowledgement of one set. digests: participant -> SHA-256 of its contribution."""
    shown, root = book_root(setup.context, book), set_root(digests)
    votes = (
        SeatVote(seat, sign_ack(key, setup.sid, setup.context, shown, root).signature)
        for seat, key in enumerate(committee.values())
    )
    return Acks(setup.sid, tuple(votes))


def forget_checks() -> None:
    """Check books and signatures anew from here on: a device has one machine, and remembers nothing of others."""
    keys.forget_checks()
    member.forget_checks()
    kem.forget_keys()
