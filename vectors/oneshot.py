"""Vectors of `oneshot`: derivations, one session, refusals."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Buffer, Machine
from ridotto.core.wire import Codec, Message, digest
from ridotto.crypto.lattice.kahe import encrypt, generate_key
from ridotto.crypto.lattice.packed_shamir import share_key
from ridotto.crypto.lattice.samplers import public_elements
from ridotto.crypto.seal import ExchangeKey, seal
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot import OneshotCoordinator, OneshotMember, OneshotParticipant, OneshotSetup
from ridotto.secagg.oneshot.binding import PARCEL_KEY_BYTES, PARCEL_LABEL, parcel_info
from ridotto.secagg.oneshot.ciphersum import SessionSum
from ridotto.secagg.oneshot.messages import ONESHOT_MESSAGES
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.session import Timeouts
from ridotto.secagg.tasks import Fold
from vectors.common import (
    LANES,
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
from vectors.recording import Recording

POOL = tuple(member(f"m{index}") for index in range(6))
BEACON = b"beacon.." * 4
PACK = 4


def make_setup() -> OneshotSetup:
    """Return a committee of five, drawn from a pool of six."""
    return OneshotSetup(make_session("oneshot"), choose(POOL, BEACON, 5, 1), PACK, LANES.size)


SETUP = make_setup()
MEMBERS = tuple(one.name for one in SETUP.roster.members)


def machine(name: str) -> Machine:
    """Return a party as it is before the session."""
    if name == COORDINATOR:
        return OneshotCoordinator(SETUP, Timeouts(100, 10))
    if name in MEMBERS:
        return OneshotMember(SETUP, name, identity_of(name), rng_of(name))
    return OneshotParticipant(SETUP, name, identity_of(name), vector_of(name), rng_of(name), POOL)


def record() -> tuple[Recording, SessionSum]:
    """Run the session."""
    total = SessionSum(SETUP.shape, read_lanes)

    def perform(owner: str, task: Any, attachment: Buffer | None) -> Message | None:
        match task:
            case Fold():
                total.fold(task.sender, attachment or b"")
            case Settle():
                total.settle(task)
            case OpenCiphers():
                return total.open(task)
        return None

    recording = Recording(Codec(*ONESHOT_MESSAGES, attachment_limit=1 << 20), machine)
    recording.run((COORDINATOR, *PARTICIPANTS, *MEMBERS), perform)
    return recording, total


def build() -> dict[str, object]:
    """Return everything that is in oneshot.json."""
    recording, total = record()
    return {
        "protocol": "oneshot",
        "page": "docs/protocols/oneshot.md",
        "private_keys": keys((*PARTICIPANTS, *(one.name for one in POOL))),
        "session": msgspec.msgpack.encode(SETUP.session).hex(),
        "sid": SETUP.sid.hex(),
        "pool": [[one.name, one.key.hex()] for one in POOL],
        "beacon": BEACON.hex(),
        "members": list(MEMBERS),
        "pack": PACK,
        "tail": LANES.size,
        "layout": SETUP.layout.hex(),
        "context": SETUP.context.hex(),
        "vectors": {name: vector_of(name).tolist() for name in PARTICIPANTS},
        "derivations": derivations(),
        "sets": merkle_vectors(),
        "messages": recording.messages(),
        "sum": None if total.opened is None else total.opened.tolist(),
        "refusals": refusals(recording),
    }


def derivations() -> dict[str, object]:
    """Return keys, ciphertext, shares and seals from given secrets."""
    seed, share_seed, book = bytes(range(32)), bytes(range(32, 64)), bytes(range(100, 132))
    key, public = generate_key(seed), public_elements(SETUP.context, SETUP.shape.elements)
    ciphertext = encrypt(vector_of("p0"), key, seed, public, SETUP.shape)
    shares = share_key(key, SETUP.sharing, share_seed)
    mine, theirs = ExchangeKey(bytes([1]) * 32), ExchangeKey(bytes([2]) * 32)
    parcel_key = mine.agree(theirs.public, SETUP.context, PARCEL_LABEL, parcel_info(book, 3, 1), PARCEL_KEY_BYTES)
    return {
        "public_elements_sha256": digest(public.astype("<u8").tobytes()).hex(),
        "public_first_words": [int(word) for word in public[:, 0, 0]],
        "seed": seed.hex(),
        "key_first_coefficients": [int(value) for value in key[:16]],
        "key_sha256": digest(key.astype("<i4").tobytes()).hex(),
        "ciphertext_of_p0_sha256": digest(ciphertext).hex(),
        "ciphertext_first_bytes": bytes(ciphertext[:32]).hex(),
        "share_seed": share_seed.hex(),
        "shares_sha256": [digest(share).hex() for share in shares],
        "share_first_words": [np.frombuffer(share, "<u4")[:4].tolist() for share in shares],
        "participant_exchange_private": mine.to_bytes().hex(),
        "member_exchange_private": theirs.to_bytes().hex(),
        "book": book.hex(),
        "participant": 3,
        "seat": 1,
        "parcel_key": parcel_key.hex(),
        "plaintext": seed.hex(),
        "digest": book.hex(),
        "parcel": seal(parcel_key, seed, book).hex(),
    }


def refusals(recording: Recording) -> list[dict[str, object]]:
    """Return what is refused in this protocol, and what in all with a committee."""
    release = recording.find("Release")
    cases = [
        ("share of another size", release, COORDINATOR, lambda m: replace(m, share=m.share[:-4])),
        (
            "share with a word beyond the prime",
            release,
            COORDINATOR,
            lambda m: replace(m, share=b"\xff" * len(m.share)),
        ),
        (
            "parcel of another size",
            recording.find("Contribution"),
            COORDINATOR,
            lambda m: replace(m, parcels=(m.parcels[0][:-1], *m.parcels[1:])),
        ),
    ]
    kinds = Kinds("Contribution", "Parcels", "Release")
    return [*shared_refusals(recording, kinds, MEMBERS), *(recording.refusal(*case) for case in cases)]
