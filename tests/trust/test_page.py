"""docs/receipts.md keeps its word: its fields are those of the code."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from ridotto.crypto.seal import verify
from ridotto.rounds.inclusion import Contributed
from ridotto.rounds.receipt import CommitteeSignatures, Receipt, SignedReceipt, SumReceipt
from tests.trust.world import CLOSED, COORDINATOR, SALT, SIGNED

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "receipts.md").read_text(encoding="utf-8")


def test_the_fields() -> None:
    for kind in (SignedReceipt, Receipt, SumReceipt, CommitteeSignatures, Contributed):
        for field in kind.__struct_fields__:
            assert f"`{field}`" in PAGE


def test_the_signature_as_the_page_says() -> None:
    """From the JSON alone, with nothing of ours but the signature scheme."""
    data = msgspec.json.decode(msgspec.json.encode(SIGNED))
    receipt = SIGNED.receipt
    said = hashlib.sha256(b"ridotto/1 receipt\x00" + msgspec.msgpack.encode(receipt, order="deterministic")).digest()
    verify(COORDINATOR.public, "round receipt", said, bytes.fromhex(data["signature"]))
    assert '"round receipt", SHA-256("ridotto/1 receipt" 00' in PAGE


def test_the_commitment_as_the_page_says() -> None:
    packed = CLOSED[0].world.opened().astype("<u4").tobytes()
    assert hashlib.sha256(b"ridotto/1 sum\x00" + SALT + packed).hexdigest() == SIGNED.receipt.sums[0].sum
    assert 'SHA-256("ridotto/1 sum" 00' in PAGE
