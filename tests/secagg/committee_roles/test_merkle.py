"""Merkle trees of RFC 6962, against its shape spelled out by hand."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.secagg.committee_roles.agreement import set_leaves, set_root
from ridotto.secagg.committee_roles.merkle import check_proof, merkle_proof, merkle_root


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_small_trees_by_hand() -> None:
    a, b, c = (sha(b"\x00" + leaf) for leaf in (b"a", b"b", b"c"))
    assert merkle_root([]) == sha(b"")
    assert merkle_root([b"a"]) == a
    assert merkle_root([b"a", b"b"]) == sha(b"\x01" + a + b)
    assert merkle_root([b"a", b"b", b"c"]) == sha(b"\x01" + sha(b"\x01" + a + b) + c)
    assert merkle_proof([b"a", b"b", b"c"], 0) == (b, c)
    assert merkle_proof([b"a", b"b", b"c"], 2) == (sha(b"\x01" + a + b),)


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_every_leaf_has_a_proof_and_nothing_else_does(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, proof = merkle_root(leaves), merkle_proof(leaves, index)
    check_proof(root, leaves[index], index, len(leaves), proof, "p")
    wrong = [(b"other", index, proof), (leaves[index], index, (*proof, root)), (leaves[index], len(leaves), proof)]
    if proof:
        wrong += [(leaves[index], index, proof[:-1]), (leaves[index], index, (b"short", *proof[1:]))]
    for leaf, place, shown in wrong:
        with pytest.raises(PeerProtocolError, match="proof"):
            check_proof(root, leaf, place, len(leaves), shown, "p")


def test_there_is_no_proof_of_what_is_not_there() -> None:
    with pytest.raises(LocalProtocolError):
        merkle_proof([b"a"], 1)


def test_a_set_is_ordered_by_participant() -> None:
    assert set_leaves({5: b"y" * 32, 2: b"x" * 32}) == [b"\0\0\0\x02" + b"x" * 32, b"\0\0\0\x05" + b"y" * 32]
    assert set_root({5: b"y" * 32, 2: b"x" * 32}) != set_root({5: b"x" * 32, 2: b"y" * 32})
