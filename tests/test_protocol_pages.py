"""docs/protocols/ keeps its word: its bytes, tables and numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ridotto.core.fixedpoint import FixedPoint
from ridotto.core.packing import pack
from ridotto.core.wire import Codec, digest
from ridotto.rounds.messages import ROUND_MESSAGES
from ridotto.rounds.plan import Plan
from ridotto.secagg.graph import complete_threshold, sparse_parameters
from ridotto.secagg.messages import (
    IDEAL_MESSAGES,
    PAIRWISE_MESSAGES,
    Box,
    Consistency,
    Delivery,
    Evidence,
    KeyBook,
    KeyEntry,
    Masked,
    PublicKeys,
    Revealed,
    SealedShares,
    Survivors,
    Unmask,
    Vote,
)
from ridotto.secagg.session import Session

PAGES = Path(__file__).resolve().parent.parent / "docs" / "protocols"
CODEC = Codec(*PAIRWISE_MESSAGES, attachment_limit=1 << 20)
KEY, SIGNATURE, SID = b"k" * 32, b"s" * 64, b"\x11" * 32


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_the_frames_on_the_wire_page() -> None:
    blocks = re.findall(r"```\n(.*?)```", page("wire"), re.S)
    vector = bytes(range(12))
    masked = CODEC.encode(Masked(digest=digest(vector), size=12, sid=SID), vector)
    found = [bytes.fromhex(re.sub(r"#.*|\s", "", block)) for block in blocks]
    assert found == [masked, CODEC.encode(Survivors(SID, (0, 1, 3, 200)))]
    assert f"{len(masked)} bytes" in page("wire")


def test_the_numbers_on_the_encoding_page() -> None:
    fixed = FixedPoint(32, 4.0, 5, 10_000)
    assert (fixed.fraction_bits, fixed.limit) == (26, 2**28)
    packed = bytes(pack(np.array([0x123, 0x456, 0x789], np.uint16), 12))
    assert f"`{packed.hex(' ')}`" in page("encoding")


SPARSE = re.findall(r"^\| ([\d,]+) \| (\d+) %, (\d+) % \| (\d+) \| (\d+) \|$", page("pairwise"), re.M)


@pytest.mark.parametrize(("n", "corrupt", "leaving", "degree", "threshold"), SPARSE)
def test_the_table_of_sparse_graphs(n: str, corrupt: str, leaving: str, degree: str, threshold: str) -> None:
    count = int(n.replace(",", ""))
    found = sparse_parameters(count, count * int(corrupt) // 100, count * int(leaving) // 100)
    assert found == (int(degree), int(threshold))


def test_all_rows_of_that_table_are_found() -> None:
    assert len(SPARSE) == 7


@pytest.mark.parametrize("members", [10, 128])
def test_the_table_of_costs(members: int) -> None:
    everyone = range(members)
    up = [
        PublicKeys(SID, KEY, KEY, SIGNATURE),
        SealedShares(SID, KEY, KEY, (b"b" * 88,) * (members - 1), b"c" * 64 * members),
        Masked(digest=KEY, size=4_000_000, sid=SID),
        Consistency(SID, SIGNATURE),
        Unmask(SID, KEY, tuple(Revealed(i, b"s" * 36) for i in everyone), ()),
    ]
    down = [
        KeyBook(SID, tuple(KeyEntry(i, KEY, KEY, SIGNATURE) for i in everyone)),
        Delivery(SID, tuple(Box(i, b"b" * 88, KEY, KEY) for i in everyone[1:])),
        Survivors(SID, tuple(everyone)),
        Evidence(SID, tuple(Vote(i, SIGNATURE) for i in everyone)),
    ]
    sizes = [[len(CODEC.header(message)) for message in way] for way in (up, down)]
    threshold = complete_threshold(members, Plan(cohort=members).corrupt_of(members))
    numbers = [members, threshold, *sizes[0], sum(sizes[0]), *sizes[1], sum(sizes[1])]
    assert "| " + " | ".join(f"{number:,}" for number in numbers) + " |" in page("pairwise")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("pairwise", (*PAIRWISE_MESSAGES, KeyEntry, Box)),
        ("ideal", IDEAL_MESSAGES),
        ("rounds", (*ROUND_MESSAGES, Session)),
    ],
)
def test_every_message_and_field_is_on_its_page(name: str, kinds: tuple[type, ...]) -> None:
    text = page(name)
    for kind in kinds:
        if not issubclass(kind, (KeyEntry, Box)):
            assert re.search(rf"\b{kind.__name__}\b", text), kind
        for field in kind.__struct_fields__:  # type: ignore[attr-defined]
            assert f"`{field}" in text, (kind, field)


def test_every_field_of_a_plan_is_on_the_page_in_order() -> None:
    text = page("rounds").partition("with the keys, in this order,")[2]
    places = [text.index(f"`{name}`") for name in Plan.__struct_fields__]
    assert places == sorted(places)
