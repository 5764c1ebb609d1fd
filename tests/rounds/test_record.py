"""Records: what is kept, and that only the coordinator's signature over exactly this counts."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from ridotto.crypto.seal import SignatureError
from ridotto.rounds.plan import DistributedGaussian, Plan
from ridotto.rounds.private import PrivacyAccount
from ridotto.rounds.record import RoundRecord, SessionRecord, SignedRecord, session_record, sign_record, with_privacy
from ridotto.secagg.session import SessionResult
from tests.conformance.world import identity

KEY = identity("coordinator")


def make_record(**changes: object) -> RoundRecord:
    sessions = (
        SessionRecord(sid="aa", shard=0, members=3, included=("a", "b"), lost={"c": "sent no Masked"}),
        SessionRecord(
            sid="bb", shard=1, members=2, included=(), lost={"d": "declined: no data"}, failure="no", blamed=("e",)
        ),
    )
    settings: dict[str, object] = {
        "round": 3,
        "attempt": 4,
        "plan": "p" * 64,
        "protocol": "pairwise",
        "model_before": "1" * 64,
        "model": "2" * 64,
        "started": 1.0,
        "finished": 2.0,
        "sessions": sessions,
        "metrics": {"loss": 0.5},
    }
    return RoundRecord(**(settings | changes))  # type: ignore[arg-type]


def test_a_signed_record_checks() -> None:
    signed = sign_record(make_record(), KEY)
    signed.check(KEY.public)
    again = msgspec.json.decode(msgspec.json.encode(signed), type=SignedRecord)
    again.check(KEY.public)
    assert again == signed


@pytest.mark.parametrize("field", ["round", "model", "metrics", "failure", "sessions", "finished"])
def test_a_changed_record_is_refused(field: str) -> None:
    other: dict[str, object] = {
        "round": 9,
        "model": "3" * 64,
        "metrics": {},
        "failure": "x",
        "sessions": (),
        "finished": 9,
    }
    signed = sign_record(make_record(), KEY)
    forged = msgspec.structs.replace(signed, record=make_record(**{field: other[field]}))
    with pytest.raises(SignatureError, match="no valid signature"):
        forged.check(KEY.public)


def test_another_coordinators_record_is_refused() -> None:
    signed = sign_record(make_record(), identity("other"))
    with pytest.raises(SignatureError, match="the record names coordinator"):
        signed.check(KEY.public)
    with pytest.raises(SignatureError, match="no valid signature"):
        msgspec.structs.replace(signed, coordinator=KEY.public.hex()).check(KEY.public)


@pytest.mark.parametrize("signature", ["", "not hex", "00", "00" * 64, "é" * 128])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    signed = msgspec.structs.replace(sign_record(make_record(), KEY), signature=signature)
    with pytest.raises(SignatureError):
        signed.check(KEY.public)


def test_the_statement_is_a_hash_with_a_domain_and_sorted_maps() -> None:
    """Spelled out for other implementations: a map in the order of the class, inner maps sorted by key."""
    record = make_record(sessions=(), metrics={"b": 1.0, "a": 2.0})
    fields = {name: getattr(record, name) for name in record.__struct_fields__} | {"metrics": {"a": 2.0, "b": 1.0}}
    encoded = msgspec.msgpack.encode(fields)
    assert record.statement() == hashlib.sha256(b"ridotto/1 record\x00" + encoded).digest()
    assert record.statement() == make_record(sessions=(), metrics={"a": 2.0, "b": 1.0}).statement()


def test_lost_and_blamed_are_gathered_over_sessions() -> None:
    record = make_record()
    assert record.lost == {"c": "sent no Masked", "d": "declined: no data"}
    assert record.blamed == ("e",)


def test_a_session_result_becomes_a_record() -> None:
    result = SessionResult(b"\xab" * 32, ("a",), {"b": "left"})
    assert session_record(result, 2, 5, "TOO_FEW: x", ("b",)) == SessionRecord(
        sid="ab" * 32, shard=2, members=5, included=("a",), lost={"b": "left"}, failure="TOO_FEW: x", blamed=("b",)
    )


def test_a_record_may_say_what_was_spent_and_what_is_left() -> None:
    dp = DistributedGaussian(noise_multiplier=4.0, epsilon=8.0, delta=1e-6)
    account = PrivacyAccount(Plan(cohort=10, clip=1.0, max_examples=1, dp=dp), 5, planned=3)
    account.charge()
    record = with_privacy(make_record(), account.statement())
    assert (record.privacy, record.epsilon_left) == (account.statement(), 8.0 - account.cost.epsilon)
    signed = sign_record(record, KEY)
    again = msgspec.json.decode(msgspec.json.encode(signed), type=SignedRecord)
    again.check(KEY.public)
    assert again == signed
    forged = msgspec.structs.replace(signed, record=msgspec.structs.replace(record, epsilon_left=7.9))
    with pytest.raises(SignatureError):
        forged.check(KEY.public)
