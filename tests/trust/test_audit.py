"""Receipts: what holds is said in words, what does not is refused, and names can be left out."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.errors import DataError, LocalProtocolError, PeerProtocolError, RidottoError
from ridotto.privacy.event import Relation
from ridotto.privacy.statement import PrivacyStatement, Unit
from ridotto.rounds.receipt import (
    LARGEST_RECEIPT,
    RECEIPT_CONTEXT,
    Receipt,
    SumReceipt,
    check_sum,
    commit_sum,
    decode_receipt,
    encode_receipt,
    make_receipt,
    without_names,
)
from ridotto.rounds.record import SignedRecord, sign_record
from ridotto.trust.audit import NOT_PROVED, audit
from tests.secagg.oneshot.world import identity
from tests.trust.world import CLOSED, COORDINATOR, RECORD, SALT, SIGNED, make_record


def resigned(receipt: Receipt, **beside: object) -> bytes:
    """Sign a changed receipt, as its coordinator can."""
    signature = COORDINATOR.sign(RECEIPT_CONTEXT, receipt.statement()).hex()
    return encode_receipt(replace(SIGNED, receipt=receipt, signature=signature, **beside))


def with_sum(**changes: object) -> Receipt:
    first, second = SIGNED.receipt.sums
    return replace(SIGNED.receipt, sums=(replace(first, **changes), second))


def with_committee(place: int, **changes: object) -> Receipt:
    sums = list(SIGNED.receipt.sums)
    sums[place] = replace(sums[place], committee=replace(sums[place].committee, **changes))
    return replace(SIGNED.receipt, sums=tuple(sums))


def refusal(data: bytes) -> str:
    with pytest.raises(PeerProtocolError) as refused:
        audit(data)
    return refused.value.why


def test_a_receipt_says_what_it_proves_and_what_it_does_not() -> None:
    said = audit(encode_receipt(SIGNED), COORDINATOR.public)
    text = "\n".join(said)
    assert said[0] == (
        f"The coordinator with key {COORDINATOR.public.hex()} signed this receipt of round 1, attempt 2. "
        "It is the key that you gave."
    )
    assert f"turned model {'6d' * 32} into model {'6e' * 32}" in text
    assert "1 were lost on the way" in text
    assert "one sum over 4 contributions" in text
    assert "6 of its committee of 6 signed that this is the set, 4 had to" in text
    assert "unless in every one of its 2 slots somebody worked with the coordinator" in text
    assert "7 of its committee of 7 signed that this is the set, 5 had to" in text
    assert "unless more than 2 members worked with the coordinator" in text
    assert "5 participants were asked, at least 3 had to be in the sum" in text
    assert said[-len(NOT_PROVED) :] == list(NOT_PROVED)
    assert any("any differential privacy" in one for one in said)
    assert all(one.endswith(".") and "\n" not in one for one in said)


def test_without_names_it_holds_and_names_no_participant() -> None:
    data = encode_receipt(without_names(SIGNED))
    said = "\n".join(audit(data))
    assert b"p00" not in data
    assert "p00" not in said
    assert "compare it with the one that you know" in said
    assert "The record of the round is not here" in said
    assert said.count("The session's description is not here") == 2


def test_a_receipt_survives_its_encoding() -> None:
    assert decode_receipt(encode_receipt(SIGNED)) == SIGNED


def test_another_coordinator_is_refused() -> None:
    with pytest.raises(PeerProtocolError, match="not by"):
        audit(encode_receipt(SIGNED), identity("m000").public)
    other = encode_receipt(replace(SIGNED, coordinator=identity("m000").public.hex()))
    assert "no valid signature" in refusal(other)


@pytest.mark.parametrize("field", ["round", "attempt", "plan", "model_before", "model", "record"])
def test_any_change_of_the_receipt_is_seen(field: str) -> None:
    value = 9 if field in ("round", "attempt") else "0" * 64
    changed = replace(SIGNED.receipt, **{field: value})
    assert "no valid signature" in refusal(encode_receipt(replace(SIGNED, receipt=changed)))
    # Signed anew by a coordinator that lies, it is not what the signed record says.
    assert "record" in refusal(resigned(changed))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"root": "0" * 64}, "the set as m000 acknowledged it bears no valid signature"),
        ({"count": 5}, "sets of different sizes"),
        ({"sid": "0" * 64}, "name different sums"),
        ({"shard": 7}, "sets of different sizes"),
        ({"protocol": "oneshot"}, "is another one"),
    ],
)
def test_a_coordinator_that_signs_another_set_is_found_out(changes: dict[str, object], why: str) -> None:
    assert why in refusal(resigned(with_sum(**changes)))


def test_without_names_the_committee_still_vouches_for_session_and_set() -> None:
    bare: dict[str, object] = {"record": None, "sessions": ()}
    assert "acknowledged it bears no valid" in refusal(resigned(with_sum(root="0" * 64), **bare))
    assert "acknowledged it bears no valid" in refusal(resigned(with_sum(sid="0" * 64), **bare))
    assert "malformed" in refusal(resigned(with_sum(protocol="oneshot"), **bare))
    assert "no committee that this version knows" in refusal(resigned(with_sum(protocol="other"), **bare))


FIRST, SECOND = (one.committee for one in SIGNED.receipt.sums)


@pytest.mark.parametrize(
    ("place", "changes", "why"),
    [
        (0, {"acks": ()}, "0 acknowledged its set, 2 are needed"),
        (1, {"acks": SECOND.acks[:4]}, "4 acknowledged its set, 5 are needed"),
        (0, {"acks": FIRST.acks[::-1]}, "not sorted"),
        (0, {"acks": (replace(FIRST.acks[0], signature=b"s" * 64), *FIRST.acks[1:])}, "m000"),
        (0, {"releases": FIRST.releases[::-1]}, "not sorted"),
        (1, {"releases": (replace(SECOND.releases[0], digest=b"d" * 32),)}, "what m000 released"),
        (0, {"book": b"b" * 32}, "acknowledged it bears no valid signature"),
        (0, {"layout": b"\xc1"}, "malformed"),
        (0, {"layout": b""}, "malformed"),
        (0, {"layout": SECOND.layout}, "malformed"),
    ],
)
def test_committees_that_did_not_sign_are_found_out(place: int, changes: dict[str, object], why: str) -> None:
    assert why in refusal(resigned(with_committee(place, **changes)))


def test_slots_without_seats_are_refused() -> None:
    roster, _, tail, sigma = msgspec.msgpack.decode(FIRST.layout)
    for slots, why in (((0, 0, 0, 2, 2, 2), "every seat has a slot"), ((0, 0, 0, 1, 1, 2**60), "malformed")):
        layout = msgspec.msgpack.encode((roster, slots, tail, sigma))
        assert why in refusal(resigned(with_committee(0, layout=layout)))


@pytest.mark.parametrize("which", ["forged", "of another", "with another set"])
def test_a_record_that_is_not_the_one_is_refused(which: str) -> None:
    record: SignedRecord
    why = ""
    match which:
        case "forged":
            record, why = replace(RECORD, signature="0" * 128), "no valid signature"
        case "of another":
            record, why = sign_record(RECORD.record, identity("m000")), "no valid signature"
        case _:
            record, why = make_record(CLOSED[:1]), "not the one that the receipt is about"
    assert why in refusal(encode_receipt(replace(SIGNED, record=record)))


def test_sessions_that_are_not_those_are_refused() -> None:
    first, second = SIGNED.sessions
    for sessions, why in (
        ((second, first), "is another one"),
        ((first,), "not one session for each"),
        ((first, b"\xc1"), "malformed"),
    ):
        assert why in refusal(encode_receipt(replace(SIGNED, sessions=sessions)))


def test_sessions_of_another_plan_or_model_are_refused() -> None:
    """A coordinator that writes another model into record and receipt than the sessions were about."""
    record = make_record(CLOSED, model_before="0" * 64)
    signed = make_receipt(record, [one.opened for one in CLOSED], COORDINATOR)
    assert "another plan, model, round or attempt" in refusal(encode_receipt(signed))


def test_a_record_with_other_names_is_refused() -> None:
    parts = [replace(part, included=(*part.included[:-1], "stranger")) for part in RECORD.record.sessions]
    record = make_record(CLOSED, sessions=tuple(parts))
    signed = make_receipt(record, [one.opened for one in CLOSED], COORDINATOR)
    assert "names participants that the session has not" in refusal(encode_receipt(signed))


def test_a_failed_round_has_a_receipt_too() -> None:
    record = make_record([], model=b"m".hex() * 32, failure="TOO_FEW: nobody came")
    said = audit(encode_receipt(make_receipt(record, [], COORDINATOR)))
    assert "opened no sum" in said[1]


def test_sums_without_a_committee_rest_on_the_coordinator() -> None:
    bare = dataclasses.replace(CLOSED[0].opened, evidence=None)
    said = "\n".join(audit(encode_receipt(make_receipt(make_record(CLOSED[:1]), [bare], COORDINATOR))))
    assert "Nobody but the coordinator says here which set was summed" in said


def test_the_sum_can_be_checked_by_who_is_shown_it() -> None:
    world, receipt = CLOSED[0].world, SIGNED.receipt.sums[0]
    check_sum(receipt, world.opened(), 32, SALT)
    other = world.opened().copy()
    other[0] ^= 1
    with pytest.raises(PeerProtocolError, match="its sum is not the one"):
        check_sum(receipt, other, 32, SALT)
    with pytest.raises(LocalProtocolError, match="a salt has 32 bytes"):
        commit_sum(np.zeros(3, np.uint32), 32, b"short")


def test_what_does_not_belong_together_makes_no_receipt() -> None:
    one = CLOSED[0].opened
    fewer = dict(list(one.digests.items())[:3])
    for opened, why in (
        (dataclasses.replace(one, digests=fewer), "not one that the record says"),
        (dataclasses.replace(one, session=CLOSED[1].opened.session), "not one that the record says"),
        (dataclasses.replace(one, evidence=CLOSED[1].opened.evidence), "another set"),
    ):
        with pytest.raises(LocalProtocolError, match=why):
            make_receipt(RECORD, [opened], COORDINATOR)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"null", b'{"receipt": 1}'])
def test_what_is_no_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not a receipt"):
        audit(data)


def test_long_files_are_refused_before_they_are_read() -> None:
    with pytest.raises(DataError, match="at most"):
        audit(bytes(LARGEST_RECEIPT + 1))


ENCODED = encode_receipt(SIGNED)


@given(place=st.integers(0, len(ENCODED) - 1), flip=st.integers(1, 255))
def test_fuzz_any_changed_byte_is_refused_or_harmless(place: int, flip: int) -> None:
    """Nothing but our errors comes out; and what passes says the same (a byte of white space, say)."""
    data = bytearray(ENCODED)
    data[place] ^= flip
    try:
        said = audit(bytes(data), COORDINATOR.public)
    except RidottoError:
        return
    assert said == audit(ENCODED, COORDINATOR.public)


def test_every_field_is_under_the_signature() -> None:
    """The statement covers all that a receipt has: a new field can't be forgotten."""
    assert Receipt.__struct_fields__ == ("round", "attempt", "plan", "model_before", "model", "record", "sums")
    assert SumReceipt.__struct_fields__ == ("sid", "shard", "protocol", "root", "count", "sum", "committee")
    assert with_sum(sum="0" * 64).statement() != SIGNED.receipt.statement()


def test_what_the_record_says_about_privacy_is_the_coordinators_word() -> None:
    statement = PrivacyStatement(
        epsilon=1.5,
        delta=1e-6,
        budget=2.0,
        rounds=3,
        planned_rounds=10,
        unit=Unit.PARTICIPANT,
        relation=Relation.ZERO_OUT,
        sampling="Everybody takes part.",
        mechanism="gaussian",
        clip=1.0,
        noise_multiplier=1.0,
        trust="Forged\x1b[2J line\nbreak.",
        method="exact",
    )
    record = make_record(CLOSED, privacy=statement)
    said = audit(encode_receipt(make_receipt(record, [one.opened for one in CLOSED], COORDINATOR)))
    (about,) = [one for one in said if "about privacy" in one]
    assert "epsilon 1.5 of 2 at delta 1e-06" in about
    assert about.endswith("This is its word: the receipt does not prove that noise was added.")
    assert "Forged [2J line break." in about
