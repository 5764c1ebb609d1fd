"""Proofs of being in a set: for every participant, for nobody else, and without telling who else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.core.wire import digest
from ridotto.errors import DataError, LocalProtocolError, PeerProtocolError, RidottoError
from ridotto.rounds.inclusion import (
    LARGEST_CONTRIBUTED,
    Contributed,
    Inclusion,
    check_inclusion,
    decode_contributed,
    encode_contributed,
    prove_inclusion,
)
from ridotto.rounds.receipt import without_names
from ridotto.secagg.session import session_id
from tests.trust.world import CLOSED, SIGNED

RECEIPT = without_names(SIGNED).receipt
SESSION = CLOSED[0].opened.session
DIGESTS = CLOSED[0].opened.digests
SID = CLOSED[0].world.setup.sid


def proof_of(participant: int) -> Inclusion:
    return prove_inclusion(SID, DIGESTS, participant)


@pytest.mark.parametrize("participant", [0, 1, 2, 4])
def test_everybody_in_the_set_can_check_that_it_is(participant: int) -> None:
    """From what it sent itself, the session it was shown, a published receipt and its proof."""
    name = SESSION.members[participant].name
    sent = next(one for one in CLOSED[0].world.said("MaskedVector") if one.sender == name)
    found = check_inclusion(RECEIPT, SESSION, name, sent.message.contribution, proof_of(participant))
    assert found == RECEIPT.sums[0]


def test_who_is_not_in_the_set_gets_no_proof() -> None:
    with pytest.raises(LocalProtocolError, match="not in the set"):
        proof_of(3)
    for index in range(4):
        stolen = replace(proof_of(4), index=index)
        with pytest.raises(PeerProtocolError, match="does not hold"):
            check_inclusion(RECEIPT, SESSION, "p003", digest(b"what p003 sent"), stolen)


def test_a_proof_tells_nothing_about_the_others() -> None:
    """Its hashes change with every other contribution, which is masked: there is no name and no digest in it."""
    data = msgspec.msgpack.encode(proof_of(0))
    assert all(member.name.encode() not in data for member in SESSION.members)
    assert all(one not in data for one in DIGESTS.values())
    assert len(proof_of(0).proof) == 2


@pytest.mark.parametrize("change", ["contribution", "index", "proof", "short", "name"])
def test_proofs_that_do_not_hold_are_refused(change: str) -> None:
    proof, contribution, name = proof_of(1), DIGESTS[1], "p001"
    match change:
        case "contribution":
            contribution = b"d" * 32
        case "index":
            proof = replace(proof, index=0)
        case "proof":
            proof = replace(proof, proof=(b"x" * 32, *proof.proof[1:]))
        case "short":
            proof = replace(proof, proof=proof.proof[:1])
        case "name":
            name = "p000"
    with pytest.raises(PeerProtocolError, match="does not hold"):
        check_inclusion(RECEIPT, SESSION, name, contribution, proof)


def test_receipts_of_another_session_plan_or_model_are_refused() -> None:
    proof = proof_of(1)
    with pytest.raises(PeerProtocolError, match="not about this session"):
        check_inclusion(RECEIPT, replace(SESSION, model=b"x" * 32), "p001", DIGESTS[1], proof)
    with pytest.raises(PeerProtocolError, match="not about this session"):
        check_inclusion(RECEIPT, SESSION, "p001", DIGESTS[1], replace(proof, sid=b"x" * 32))
    with pytest.raises(PeerProtocolError, match="another plan or model"):
        check_inclusion(replace(RECEIPT, plan="0" * 64), SESSION, "p001", DIGESTS[1], proof)


OWN = Contributed(
    name="p001", attempt=2, session=SESSION, contribution=DIGESTS[1].hex(), model="0" * 64, inclusion=proof_of(1)
)
ENCODED = encode_contributed(OWN)


def test_what_a_participant_keeps_survives_its_encoding() -> None:
    assert decode_contributed(ENCODED) == OWN
    assert session_id(decode_contributed(ENCODED).session) == SID


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[" * 100_000, ENCODED.replace(b"p001", b"\\u001b[2J", 1)])
def test_what_is_none_of_it_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(DataError, match="not a participant's proof") as refused:
        decode_contributed(data)
    assert str(refused.value).isprintable()


def test_long_files_are_refused_before_they_are_read() -> None:
    with pytest.raises(DataError, match="at most"):
        decode_contributed(bytes(LARGEST_CONTRIBUTED + 1))


@given(place=st.integers(0, len(ENCODED) - 1), flip=st.integers(1, 255))
def test_fuzz_any_changed_byte_is_refused_or_harmless(place: int, flip: int) -> None:
    """Nothing but our errors comes out; and what passes proves the same, or nothing at all."""
    data = bytearray(ENCODED)
    data[place] ^= flip
    try:
        own = decode_contributed(bytes(data))
        assert own.inclusion is not None
        check_inclusion(RECEIPT, own.session, own.name, bytes.fromhex(own.contribution), own.inclusion)
    except RidottoError:
        return
    assert (own.session, own.name, own.contribution, own.inclusion) == (
        OWN.session,
        OWN.name,
        OWN.contribution,
        OWN.inclusion,
    )
