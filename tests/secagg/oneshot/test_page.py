"""docs/protocols/oneshot.md keeps its word: its numbers and names are those of the code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec
import pytest

from ridotto.core.wire import Codec
from ridotto.crypto.lattice import parameters
from ridotto.crypto.lattice.fields import Shape, message_bits
from ridotto.secagg.committee_roles.seals import overhead_bytes, public_bytes
from ridotto.secagg.oneshot.messages import ONESHOT_MESSAGES, Contribution
from ridotto.secagg.oneshot.setup import OneshotFailure
from tests.secagg.oneshot.world import make_setup

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "protocols" / "oneshot.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("length", "bits", "megabytes"), [(100_000, 21, "0.40"), (1_000_000, 21, "3.10"), (1_000_000, 28, "4.08")]
)
def test_the_upload(length: int, bits: int, megabytes: str) -> None:
    shape = Shape(length, bits, 7, 1024)
    sharing = make_setup(committee=64, corrupt=24, pack=21).sharing
    parcels = (bytes(sharing.share_bytes + 16),) * 64
    message = Contribution(bytes(32), shape.size, bytes(32), bytes(32), bytes(32), bytes(64), parcels)
    size = len(Codec(*ONESHOT_MESSAGES).header(message)) + shape.size
    assert f"{size / 1e6:.2f}" == megabytes
    assert f"{megabytes} MB" in PAGE


@pytest.mark.parametrize(("length", "bits", "megabytes"), [(100_000, 21, "0.47"), (1_000_000, 21, "3.17")])
def test_the_upload_with_hybrid_seals(length: int, bits: int, megabytes: str) -> None:
    shape = Shape(length, bits, 7, 1024)
    sharing = make_setup(committee=64, corrupt=24, pack=21).sharing
    parcels = (bytes(sharing.share_bytes + overhead_bytes("hybrid")),) * 64
    message = Contribution(bytes(32), shape.size, bytes(32), bytes(32), bytes(32), bytes(64), parcels)
    assert f"{(len(Codec(*ONESHOT_MESSAGES).header(message)) + shape.size) / 1e6:.2f}" == megabytes
    assert f"{megabytes} MB" in PAGE


def test_the_sizes_of_hybrid_seals() -> None:
    assert (public_bytes("hybrid"), overhead_bytes("hybrid") - overhead_bytes("x25519")) == (1216, 1088)
    for text in ("1,184 bytes", "1,216", "1,088 bytes"):
        assert text in PAGE


def test_the_names_of_messages_fields_and_failures() -> None:
    for kind in ONESHOT_MESSAGES:
        assert f"{kind.__name__}" in PAGE
        for field in kind.__struct_fields__:
            assert f"`{field}" in PAGE
    for code in OneshotFailure:
        assert f"`{code}`" in PAGE


def test_the_parameters() -> None:
    for prime in parameters.PRIMES:
        assert str(prime) in PAGE
    assert (message_bits(1248), message_bits(2**14), message_bits(2**16)) == (84, 82, 80)
    assert "T = 2^84 for up to 1,248" in PAGE
    assert str(parameters.SIGMA_NOISE) in PAGE


def test_the_context() -> None:
    setup = make_setup()
    roster = setup.roster
    layout = [[[[one.name, one.key] for one in roster.members], 2, roster.pool, roster.beacon], 2, setup.tail]
    said = b"ridotto/1 oneshot R96\x00" + setup.sid + msgspec.msgpack.encode(layout)
    assert hashlib.sha256(said).digest() == setup.context
    hybrid = make_setup(seal="hybrid")
    said = b"ridotto/1 oneshot R96\x00" + hybrid.sid + msgspec.msgpack.encode([*layout, "hybrid"])
    assert hashlib.sha256(said).digest() == hybrid.context
    assert '[roster, rho, tail, "hybrid"]' in PAGE
    assert re.search(r'"ridotto/1 oneshot R96" 00 \|\| sid \|\| MessagePack', PAGE)
