"""`ridotto audit`: what it prints, and with which code it ends, for good receipts and hostile ones."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from ridotto.rounds.inclusion import LARGEST_CONTRIBUTED, Contributed, encode_contributed, prove_inclusion
from ridotto.rounds.receipt import LARGEST_RECEIPT, Receipt, encode_receipt, without_names
from ridotto.trust.audit import NOT_PROVED
from tests.trust.world import CLOSED, COORDINATOR, SIGNED

KEY = COORDINATOR.public.hex()
SESSION, DIGESTS = CLOSED[0].opened.session, CLOSED[0].opened.digests
OWN = Contributed(
    name="p001",
    attempt=SIGNED.receipt.attempt,
    session=SESSION,
    contribution=DIGESTS[1].hex(),
    model=SIGNED.receipt.model,
    inclusion=prove_inclusion(CLOSED[0].world.setup.sid, DIGESTS, 1),
)


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    path = tmp_path / "receipt.json"
    path.write_bytes(encode_receipt(SIGNED))
    return path


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    path = tmp_path / "proof.json"
    path.write_bytes(encode_contributed(OWN))
    return path


def test_the_operator_reads_all_of_it(ridotto, receipt):
    ran = ridotto("audit", receipt, "--coordinator", KEY)
    assert (ran.code, ran.err) == (0, "")
    said = ran.out.splitlines()
    assert said[0].endswith("It is the key that you gave.")
    assert any("The record of the round is here" in one for one in said)
    assert said[-len(NOT_PROVED) :] == list(NOT_PROVED)


def test_who_downloaded_it_is_told_to_compare_the_key(ridotto, receipt):
    receipt.write_bytes(encode_receipt(without_names(SIGNED)))
    ran = ridotto("audit", receipt)
    assert ran.code == 0
    assert "compare it with the one that you know" in ran.out
    assert "p001" not in ran.out


def test_reads_standard_input(ridotto, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(encode_receipt(SIGNED))))
    assert ridotto("audit", "-", "--coordinator", KEY).code == 0


def test_a_participant_reads_that_it_was_in_the_set(ridotto, receipt, proof):
    receipt.write_bytes(encode_receipt(without_names(SIGNED)))
    ran = ridotto("audit", receipt, "--coordinator", KEY, "--proof", proof)
    assert ran.code == 0
    said = ran.out.splitlines()
    place = next(at for at, one in enumerate(said) if one.startswith("The contribution of p001 (SHA-256"))
    assert "one of 4" in said[place]
    assert all(not one.startswith("Not proved") for one in said[:place])


def test_a_participant_without_a_proof_reads_what_the_coordinator_said(ridotto, receipt, proof):
    proof.write_bytes(encode_contributed(replace(OWN, inclusion=None, denied="no contribution of p001")))
    ran = ridotto("audit", receipt, "--proof", proof)
    assert ran.code == 0
    assert "Not proved: that a contribution of p001 was in a sum. The coordinator said: no contribution of p001." in (
        ran.out.splitlines()
    )
    proof.write_bytes(encode_contributed(replace(OWN, inclusion=None, denied="\x1b[2J")))
    assert ridotto("audit", receipt, "--proof", proof).code == 4


def test_says_the_same_to_machines(ridotto, receipt):
    ran = ridotto("audit", receipt, "--json")
    found = json.loads(ran.out)
    assert (found["event"], found["receipt"]) == ("audit", str(receipt))
    assert found["sentences"] == ridotto("audit", receipt).out.splitlines()


@pytest.mark.parametrize("field", Receipt.__struct_fields__)
def test_any_changed_field_is_one_line_and_code_5(ridotto, receipt, field):
    value = {"round": 7, "attempt": 7, "sums": ()}.get(field, "0" * 64)
    receipt.write_bytes(encode_receipt(replace(SIGNED, receipt=replace(SIGNED.receipt, **{field: value}))))
    ran = ridotto("audit", receipt)
    assert (ran.code, ran.out) == (5, "")
    assert "bears no valid signature" in ran.sentence


def test_another_signer_is_code_5(ridotto, receipt):
    ran = ridotto("audit", receipt, "--coordinator", "0" * 64)
    assert (ran.code, ran.out) == (5, "")
    assert "not by 0000000000000000" in ran.sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"contribution": "0" * 64},
        {"name": "p000"},
        {"name": "p003"},
        {"name": "stranger"},
        {"attempt": 9},
        {"model": "0" * 64},
        {"session": CLOSED[1].opened.session},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_proof_of_somebody_else_or_something_else_is_code_5(ridotto, receipt, proof, changes):
    proof.write_bytes(encode_contributed(replace(OWN, **changes)))
    ran = ridotto("audit", receipt, "--proof", proof)
    assert (ran.code, ran.out) == (5, "")
    assert ran.sentence


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"\xff\x00", b"[" * 100_000, b'{"\\u001b[2J": 1}', b" " * (LARGEST_RECEIPT + 1)],
    ids=["empty", "object", "null", "binary", "deep", "escape", "huge"],
)
def test_what_is_no_receipt_is_one_line_and_code_4(ridotto, receipt, data):
    receipt.write_bytes(data)
    ran = ridotto("audit", receipt)
    assert (ran.code, ran.out) == (4, "")
    assert ran.sentence.isprintable()


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b" " * (LARGEST_CONTRIBUTED + 1)])
def test_what_is_no_proof_is_one_line_and_code_4(ridotto, receipt, proof, data):
    proof.write_bytes(data)
    ran = ridotto("audit", receipt, "--proof", proof)
    assert (ran.code, ran.out) == (4, "")
    assert "proof" in ran.sentence


def test_files_that_are_not_there(ridotto, receipt, tmp_path):
    for arguments in ((tmp_path / "none.json",), (receipt, "--proof", tmp_path / "none.json"), (tmp_path,)):
        ran = ridotto("audit", *arguments)
        assert ran.code == 9
        assert str(tmp_path) in ran.sentence


@pytest.mark.parametrize("key", ["", "short", "z" * 64, KEY + "00", " " + KEY[:-1]])
def test_a_key_that_is_none(ridotto, receipt, key):
    ran = ridotto("audit", receipt, "--coordinator", key)
    assert ran.code == 2
    assert "64 hex digits" in ran.sentence
