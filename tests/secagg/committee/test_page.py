"""docs/protocols/committee.md keeps its word: its numbers and names are those of the code."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from ridotto.core.wire import Codec
from ridotto.secagg.committee import binding
from ridotto.secagg.committee.messages import MASK_MESSAGES, MaskedVector, SeedParcel, SeedParcels
from ridotto.secagg.committee.setup import CommitteeFailure
from ridotto.secagg.committee_roles.complaints import DOUBTFUL_COMPLAINTS
from ridotto.secagg.session import FailureCode
from tests.secagg.committee.world import make_setup

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "protocols" / "committee.md").read_text(encoding="utf-8")
CODEC = Codec(*MASK_MESSAGES)
HASH, SIGNATURE = bytes(32), bytes(64)


@pytest.mark.parametrize(("length", "megabytes"), [(100_000, "0.40"), (1_000_000, "4.00")])
def test_the_upload(length: int, megabytes: str) -> None:
    message = MaskedVector(HASH, 4 * length, HASH, HASH, HASH, (HASH,) * 2, SIGNATURE, (bytes(48),) * 6)
    assert f"{(len(CODEC.header(message)) + 4 * length) / 1e6:.2f}" == megabytes
    assert PAGE.count(f"{megabytes} MB") == 2


@pytest.mark.parametrize(("length", "megabytes"), [(100_000, "0.41"), (1_000_000, "4.01")])
def test_the_upload_with_hybrid_seals(length: int, megabytes: str) -> None:
    parcel = bytes(make_setup(seal="hybrid").parcel_bytes)
    message = MaskedVector(HASH, 4 * length, HASH, HASH, HASH, (HASH,) * 2, SIGNATURE, (parcel,) * 6)
    assert f"{(len(CODEC.header(message)) + 4 * length) / 1e6:.2f}" == megabytes
    assert f"{megabytes} MB" in PAGE
    assert f"with hybrid seals {len(parcel):,} |" in PAGE


def test_what_a_member_is_sent() -> None:
    parcels = tuple(SeedParcel(i, HASH, HASH, (HASH,) * 2, SIGNATURE, bytes(48)) for i in range(1000))
    assert f"{len(CODEC.header(SeedParcels(HASH, parcels))) / 1e6:.2f}" == "0.26"
    assert "0.26 MB" in PAGE


def test_the_names_of_messages_fields_and_failures() -> None:
    for kind in MASK_MESSAGES:
        assert kind.__name__ in PAGE
        for field in kind.__struct_fields__:
            assert f"`{field}" in PAGE
    for code in (*CommitteeFailure, FailureCode.TOO_FEW, FailureCode.CHECK_LANE):
        assert f"`{code}`" in PAGE
    assert f"more than {DOUBTFUL_COMPLAINTS}\n" in PAGE


def test_the_domains() -> None:
    for word in (binding.CONTRIBUTION_CONTEXT, binding.RELEASE_CONTEXT, binding.PARCEL_LABEL, binding.MASK_LABEL):
        assert f'"{word}"' in PAGE.replace("\n", " ")


def test_the_context() -> None:
    setup = make_setup(sigma=2.0)
    roster = setup.roster
    members = [[one.name, one.key] for one in roster.members]
    layout = [[members, 1, roster.pool, roster.beacon], list(setup.slots), setup.tail, 2.0]
    said = b"ridotto/1 committee\x00" + setup.sid + msgspec.msgpack.encode(layout)
    assert hashlib.sha256(said).digest() == setup.context
    hybrid = make_setup(sigma=2.0, seal="hybrid")
    said = b"ridotto/1 committee\x00" + hybrid.sid + msgspec.msgpack.encode([*layout, "hybrid"])
    assert hashlib.sha256(said).digest() == hybrid.context
    assert '[roster, slots, tail, sigma, "hybrid"]' in PAGE
    assert '"ridotto/1 committee" 00 || sid || MessagePack [roster, slots, tail, sigma]' in PAGE


def test_commitments_and_noise_as_the_page_says() -> None:
    context, seed = b"c" * 32, b"s" * 32
    said = b"committee seed\x00" + context + b"\0\0\0\x03" + b"\0\0\0\x01" + seed
    assert binding.commit_seed(context, 3, 1, seed) == hashlib.sha256(said).digest()
    said = b"committee noise\x00" + context + b"\0\0\0\x01" + b"r" * 32 + seed + b"t" * 32
    assert binding.noise_seed(context, 1, b"r" * 32, [seed, b"t" * 32]) == hashlib.sha256(said).digest()
    said = b"committee vector\x00" + b"v" * 32 + b"c" * 32 + b"d" * 32
    assert binding.contribution_digest(b"v" * 32, [b"c" * 32, b"d" * 32]) == hashlib.sha256(said).digest()
    for text in ('"committee seed" 00', '"committee noise" 00', '"ridotto/1 slots" 00', '"committee vector" 00'):
        assert text in PAGE


def test_the_slots_as_the_page_says() -> None:
    setup = make_setup(slots=3, replicas=2, corrupt=2)
    roster = setup.roster
    start = b"ridotto/1 slots\x00" + roster.pool + roster.beacon
    order = sorted(range(6), key=lambda seat: hashlib.sha256(start + roster.members[seat].key).digest())
    assert [setup.slots[seat] for seat in order] == [0, 1, 2, 0, 1, 2]
