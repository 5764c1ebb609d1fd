"""What the vectors of several protocols share: keys, a session, and what everybody with a committee refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import COORDINATOR
from ridotto.core.rng import SecretRng, insecure_seeded_rng
from ridotto.core.wire import Message, digest
from ridotto.crypto.seal import IdentityKey
from ridotto.secagg.committee_roles.agreement import set_leaves, set_root
from ridotto.secagg.committee_roles.merkle import merkle_proof
from ridotto.secagg.lanes import Lanes
from ridotto.secagg.session import Member, Session
from vectors.recording import Recording, malformed

PARTICIPANTS = ("p0", "p1", "p2")
BITS, ENTRIES = 20, 5
LANES = Lanes(BITS, len(PARTICIPANTS), (1000,))
LENGTH = ENTRIES + LANES.size
LOW_ORDER = b"\x01" + bytes(31)


@dataclass(frozen=True)
class Kinds:
    """Name the messages in which the protocols differ."""

    contribution: str
    parcels: str
    release: str


def rng_of(name: str) -> SecretRng:
    """Return a party's randomness, which everybody knows."""
    return insecure_seeded_rng(1).child("vectors", name)


def identity_of(name: str) -> IdentityKey:
    """Return a party's identity, whose private key everybody knows."""
    return IdentityKey(digest(b"insecure identity of " + name.encode()))


def member(name: str) -> Member:
    """Return a party as sessions and rosters name it."""
    return Member(name, identity_of(name).public)


def make_session(protocol: str) -> Session:
    """Return a session of three, two of whom must be in the sum."""
    return Session(
        protocol=protocol,
        plan=digest(b"plan"),
        model=digest(b"model"),
        nonce=digest(b"nonce"),
        round=1,
        shard=0,
        members=tuple(member(name) for name in PARTICIPANTS),
        length=LENGTH,
        bits=BITS,
        minimum=2,
        attempt=1,
    )


def vector_of(name: str) -> IntVector:
    """Return (1, -2, 3, -4, 5) times the participant's place from 1, and its lanes with weight ten times that."""
    place = PARTICIPANTS.index(name) + 1
    entries = [place * value % 2**BITS for value in (1, -2, 3, -4, 5)]
    return np.concatenate([np.array(entries, container(BITS)), LANES.write([10 * place])])


def read_lanes(vector: IntVector) -> tuple[int, bool]:
    """Read the check lanes of an opened sum."""
    read = LANES.read(vector[ENTRIES:])
    return read.count, read.zero


def keys(names: tuple[str, ...]) -> dict[str, object]:
    """Return the identities' private keys. They are made for these vectors; nobody should use them."""
    return {name: identity_of(name).to_bytes().hex() for name in names}


def merkle_vectors() -> list[dict[str, object]]:
    """Return roots of sets, and the proof of each participant in them."""
    rows: list[dict[str, object]] = []
    for participants in ((), (0,), (0, 1), (1, 4, 7), (0, 1, 2, 3, 4, 5, 6)):
        digests = {one: digest(b"contribution" + bytes([one])) for one in participants}
        leaves = set_leaves(digests)
        rows.append(
            {
                "set": [[one, digests[one].hex()] for one in participants],
                "root": set_root(digests).hex(),
                "proofs": [[value.hex() for value in merkle_proof(leaves, place)] for place in range(len(leaves))],
            }
        )
    return rows


def shared_refusals(recording: Recording, kinds: Kinds, members: tuple[str, ...]) -> list[dict[str, object]]:
    """Return what coordinator, members and participants refuse in both protocols."""
    first, someone = members[0], PARTICIPANTS[0]
    find = recording.find
    key, book = find("MemberKey", sender=first), find("MemberBook")
    contribution, parcels = find(kinds.contribution, sender=someone), find(kinds.parcels, to=first)
    checked, included = find("Checked", sender=first), find("Included", to=first)
    ack, acks, release = find("Ack", sender=first), find("Acks", to=first), find(kinds.release, sender=first)
    cases: list[tuple[str, int, str, Callable[[Any], Message]]] = [
        ("signature of the key", key, COORDINATOR, lambda m: replace(m, signature=bytes(64))),
        ("book of another session", book, someone, lambda m: replace(m, sid=bytes(32))),
        ("book out of order", book, someone, lambda m: replace(m, entries=m.entries[::-1])),
        ("book with one member", book, someone, lambda m: replace(m, entries=m.entries[:1])),
        ("book with a key twice", book, someone, lambda m: replace(m, entries=(*m.entries, m.entries[-1]))),
        ("book with another key", book, someone, _other_key),
        ("book without my key", book, first, lambda m: replace(m, entries=m.entries[1:])),
        ("contribution without parcels", contribution, COORDINATOR, lambda m: replace(m, parcels=())),
        ("contribution for another book", contribution, COORDINATOR, lambda m: replace(m, book=bytes(32))),
        ("contribution with a key of low order", contribution, COORDINATOR, lambda m: replace(m, public=LOW_ORDER)),
        ("contribution without a signature", contribution, COORDINATOR, lambda m: replace(m, signature=bytes(64))),
        ("parcels out of order", parcels, first, lambda m: replace(m, parcels=m.parcels[::-1])),
        ("parcels below the minimum", parcels, first, lambda m: replace(m, parcels=m.parcels[:1])),
        ("one contribution of two participants", parcels, first, _one_digest),
        ("parcel without a signature", parcels, first, _unsigned_parcel),
        ("complaint about nobody", checked, COORDINATOR, lambda m: replace(m, bad=(9,))),
        ("complaints out of order", checked, COORDINATOR, lambda m: replace(m, bad=(1, 0))),
        ("set below the minimum", included, first, lambda m: replace(m, participants=m.participants[:1])),
        ("set out of order", included, first, lambda m: replace(m, participants=m.participants[::-1])),
        ("set with somebody else", included, first, lambda m: replace(m, participants=(0, 1, 7))),
        ("acknowledgement of another set", ack, COORDINATOR, lambda m: replace(m, root=bytes(32))),
        ("acknowledgement without a signature", ack, COORDINATOR, lambda m: replace(m, signature=bytes(64))),
        ("too few acknowledgements", acks, first, lambda m: replace(m, votes=m.votes[:1])),
        ("acknowledgements out of order", acks, first, lambda m: replace(m, votes=m.votes[::-1])),
        ("acknowledgements without signatures", acks, first, _unsigned_votes),
        ("release for another set", release, COORDINATOR, lambda m: replace(m, root=bytes(32))),
        ("release without a signature", release, COORDINATOR, lambda m: replace(m, signature=bytes(64))),
    ]
    rows = [recording.refusal(*case) for case in cases]
    frames = malformed(recording.codec.header(recording.sent[book][0].message), "MemberBook")
    return rows + [recording.refusal(name, book, someone, lie) for name, lie in frames.items()]


def _other_key(message: Any) -> Message:
    first, *rest = message.entries
    other = replace(first, public=first.public[:-32] + bytes(31) + b"\x09")
    changed: Message = replace(message, entries=(other, *rest))
    return changed


def _one_digest(message: Any) -> Message:
    first, second, *rest = message.parcels
    changed: Message = replace(message, parcels=(first, replace(second, digest=first.digest), *rest))
    return changed


def _unsigned_parcel(message: Any) -> Message:
    first, *rest = message.parcels
    changed: Message = replace(message, parcels=(replace(first, signature=bytes(64)), *rest))
    return changed


def _unsigned_votes(message: Any) -> Message:
    votes = message.votes
    changed: Message = replace(message, votes=tuple(replace(vote, signature=bytes(64)) for vote in votes))
    return changed
