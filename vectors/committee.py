"""Vectors of `committee`: derivations, one session, refusals."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Buffer, Machine
from ridotto.core.wire import Codec, Message
from ridotto.crypto.kem import KEM_CIPHERTEXT_BYTES, KEM_PRIVATE_BYTES, KEM_PUBLIC_BYTES
from ridotto.crypto.prg import Mask, add_masks, stream_key
from ridotto.crypto.seal import KEY_BYTES, ExchangeKey, seal
from ridotto.secagg.committee import CommitteeCoordinator, CommitteeMember, CommitteeParticipant, CommitteeSetup
from ridotto.secagg.committee.binding import (
    MASK_LABEL,
    PARCEL_KEY_BYTES,
    PARCEL_LABEL,
    commit_seed,
    noise_seed,
    parcel_info,
)
from ridotto.secagg.committee.masks import MaskedSum, sum_masks
from ridotto.secagg.committee.messages import MASK_MESSAGES
from ridotto.secagg.committee.setup import deal
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.seals import Seal
from ridotto.secagg.committee_roles.tasks import Encapsulate, Settle
from ridotto.secagg.session import Timeouts
from ridotto.secagg.tasks import Fold
from vectors.common import (
    BITS,
    LENGTH,
    PARTICIPANTS,
    Kinds,
    identity_of,
    keys,
    make_session,
    member,
    merkle_vectors,
    read_lanes,
    rng_of,
    shared_refusals,
    vector_of,
)
from vectors.encapsulated import kept, shown
from vectors.recording import Recording

POOL = tuple(member(f"m{index}") for index in range(7))
BEACON = b"beacon.." * 4
HYBRID_FILE = "committee-hybrid.json"


def make_setup(seal: Seal = "x25519") -> CommitteeSetup:
    """Return two slots of three, drawn from a pool of seven."""
    roster = choose(POOL, BEACON, 6, 1)
    return CommitteeSetup(make_session("committee"), roster, deal(roster, 2), 0, seal=seal)


SETUP, HYBRID = make_setup(), make_setup("hybrid")
MEMBERS = tuple(one.name for one in SETUP.roster.members)


def machine(setup: CommitteeSetup, name: str) -> Machine:
    """Return a party as it is before the session."""
    if name == COORDINATOR:
        return CommitteeCoordinator(setup, Timeouts(100, 10))
    if name in MEMBERS:
        return CommitteeMember(setup, name, identity_of(name), rng_of(name))
    return CommitteeParticipant(setup, name, identity_of(name), vector_of(name), rng_of(name), POOL)


def record(setup: CommitteeSetup = SETUP) -> tuple[Recording, MaskedSum, dict[str, object]]:
    """Run the session; return also what was encapsulated in it, by participant."""
    total, drawn = MaskedSum(LENGTH, BITS, read_lanes), dict[str, object]()

    def perform(owner: str, task: Any, attachment: Buffer | None) -> Message | None:
        match task:
            case SumMasks():
                return sum_masks(task)
            case Encapsulate():
                answer = kept(HYBRID_FILE, owner, task)
                drawn[owner] = shown(answer)
                return answer
            case Fold():
                total.fold(task.sender, attachment or b"")
            case Settle():
                total.settle(task)
            case Keep():
                total.keep(task, attachment or b"")
            case Unmask():
                return total.unmask(task)
        return None

    recording = Recording(Codec(*MASK_MESSAGES, attachment_limit=1 << 16), partial(machine, setup))
    recording.run((COORDINATOR, *PARTICIPANTS, *MEMBERS), perform)
    return recording, total, drawn


def build(setup: CommitteeSetup = SETUP) -> dict[str, object]:
    """Return everything that is in committee.json, or with the other setup in committee-hybrid.json."""
    recording, total, drawn = record(setup)
    return {
        "protocol": "committee",
        "page": "docs/protocols/committee.md",
        "private_keys": keys((*PARTICIPANTS, *(one.name for one in POOL))),
        "session": msgspec.msgpack.encode(setup.session).hex(),
        "sid": setup.sid.hex(),
        "pool": [[one.name, one.key.hex()] for one in POOL],
        "beacon": BEACON.hex(),
        "members": list(MEMBERS),
        "slots": list(setup.slots),
        "layout": setup.layout.hex(),
        "context": setup.context.hex(),
        "vectors": {name: vector_of(name).tolist() for name in PARTICIPANTS},
        "derivations": derivations(setup) if setup.seal == "x25519" else hybrid_derivations(),
        "sets": merkle_vectors(),
        **({"encapsulated": drawn} if drawn else {}),
        "messages": recording.messages(),
        "sum": None if total.opened is None else total.opened.tolist(),
        "refusals": refusals(recording, setup),
    }


def derivations(setup: CommitteeSetup) -> dict[str, object]:
    """Return keys, masks, seals and seeds from given secrets."""
    seed, book = bytes(range(32)), bytes(range(100, 132))
    mine, theirs = ExchangeKey(bytes([1]) * 32), ExchangeKey(bytes([2]) * 32)
    info = parcel_info(book, 3, 1)
    parcel_key = mine.agree(theirs.public, setup.context, PARCEL_LABEL, info, PARCEL_KEY_BYTES)
    mask = np.zeros(8, np.uint32)
    add_masks(mask, [Mask(seed, 1)], setup.context, MASK_LABEL)
    return {
        "seed": seed.hex(),
        "book": book.hex(),
        "participant": 3,
        "slot": 1,
        "commitment": commit_seed(setup.context, 3, 1, seed).hex(),
        "mask_key": stream_key(seed, setup.context, MASK_LABEL).hex(),
        "mask_of_8_elements_of_32_bits": mask.tolist(),
        "participant_exchange_private": mine.to_bytes().hex(),
        "member_exchange_private": theirs.to_bytes().hex(),
        "seat": 1,
        "parcel_key": parcel_key.hex(),
        "digest": book.hex(),
        "parcel": seal(parcel_key, seed, book).hex(),
        "root": book.hex(),
        "noise_seed_of_two_times_this_seed": noise_seed(setup.context, 1, book, [seed, seed]).hex(),
    }


def hybrid_derivations() -> dict[str, object]:
    """Return the randomness that members' keys come of: X25519's 32 bytes, then ML-KEM's 64, d || z of FIPS 203."""
    drawn = {name: rng_of(name) for name in MEMBERS}
    secrets = {name: rng.bytes(KEY_BYTES) + rng.bytes(KEM_PRIVATE_BYTES) for name, rng in drawn.items()}
    return {"member_secrets": {name: secret.hex() for name, secret in secrets.items()}}


def refusals(recording: Recording, setup: CommitteeSetup) -> list[dict[str, object]]:
    """Return what is refused in this protocol, and what in all with a committee."""
    kinds = Kinds("MaskedVector", "SeedParcels", "MaskSum")
    vector, masks = recording.find("MaskedVector"), recording.find("MaskSum")
    lacking = [entry for entry in range(6) if entry not in SETUP.replicas[1][1:]]
    cases = [
        ("book without a majority of a slot", recording.find("MemberBook"), PARTICIPANTS[0], _only(lacking)),
        ("vector without commitments", vector, COORDINATOR, lambda m: replace(m, commitments=())),
        ("vector with other commitments", vector, COORDINATOR, lambda m: replace(m, commitments=m.commitments[::-1])),
        ("masks of another digest", masks, COORDINATOR, lambda m: replace(m, digest=bytes(32))),
    ]
    if setup.seal == "hybrid":
        cases += hybrid_refusals(recording)
    return [*shared_refusals(recording, kinds, MEMBERS), *(recording.refusal(*case) for case in cases)]


def hybrid_refusals(recording: Recording) -> list[Any]:
    """Return what is refused of keys and parcels that have two parts."""
    key, book = recording.find("MemberKey", sender=MEMBERS[0]), recording.find("MemberBook")
    vector = recording.find("MaskedVector")
    return [
        ("key without its ML-KEM part", key, COORDINATOR, lambda m: replace(m, public=m.public[KEM_PUBLIC_BYTES:])),
        (
            "key with an ML-KEM part that is none",
            key,
            COORDINATOR,
            lambda m: replace(m, public=b"\xff" * KEM_PUBLIC_BYTES + m.public[KEM_PUBLIC_BYTES:]),
        ),
        ("book with another ML-KEM part", book, PARTICIPANTS[0], _other_kem_key),
        (
            "parcel without its ML-KEM ciphertext",
            vector,
            COORDINATOR,
            lambda m: replace(m, parcels=(m.parcels[0][KEM_CIPHERTEXT_BYTES:], *m.parcels[1:])),
        ),
        (
            "parcel with half a ciphertext",
            vector,
            COORDINATOR,
            lambda m: replace(m, parcels=(m.parcels[0][KEM_CIPHERTEXT_BYTES // 2 :], *m.parcels[1:])),
        ),
    ]


def _other_kem_key(message: Any) -> Message:
    first, second, *rest = message.entries
    mixed = second.public[:KEM_PUBLIC_BYTES] + first.public[KEM_PUBLIC_BYTES:]
    changed: Message = replace(message, entries=(replace(first, public=mixed), second, *rest))
    return changed


def _only(seats: list[int]) -> Any:
    return lambda message: replace(message, entries=tuple(one for one in message.entries if one.seat in seats))
