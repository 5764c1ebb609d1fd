"""`ideal` sums of vectors that are mostly zeros: shorter messages, the same machines."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.machine import Do, Send
from ridotto.core.packing import pack, packed_size
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.sparse_packing import unpack_either
from ridotto.core.wire import digest
from ridotto.errors import PeerProtocolError
from ridotto.secagg.messages import Plain
from ridotto.secagg.protocols import PROTOCOLS, sum_protocol
from ridotto.secagg.session import Timeouts, session_id
from ridotto.secagg.tasks import Fold
from tests.conformance.world import identity, make_session

SESSION = make_session("ideal", length=200)
DENSE = packed_size(200, SESSION.bits)


def sent(vector: np.ndarray, sparse: bool) -> Send:
    half = sum_protocol("ideal", sparse).participant
    effect = half(SESSION, "p001", identity("p001"), vector, insecure_seeded_rng(1)).start(0.0)[0]
    assert isinstance(effect, Send)
    return effect


def plain(size: int) -> Plain:
    return Plain(digest=digest(bytes(size)), size=size, sid=session_id(SESSION))


def test_only_asked_for_it_leaves_zeros_out() -> None:
    vector = np.zeros(200, np.uint32)
    vector[[3, 70]] = [1, 2**32 - 1]
    small, large = sent(vector, True), sent(vector, False)
    assert small.attachment is not None
    assert large.attachment is not None
    assert len(small.attachment) == 8 + 2 + 8
    assert bytes(large.attachment) == bytes(pack(vector, 32))
    assert (unpack_either(small.attachment, 32, 200) == vector).all()
    full = sent(np.arange(1, 201, dtype=np.uint32), True)
    assert full.attachment is not None
    assert len(full.attachment) == DENSE


def test_takes_every_size_up_to_the_dense_one_where_zeros_are_left_out() -> None:
    machine = sum_protocol("ideal", True).coordinator(SESSION, Timeouts(100, 10))
    machine.start(0.0)
    for place, size in enumerate((0, 18, DENSE)):
        name = SESSION.members[place].name
        assert machine.receive(name, plain(size), 1.0)[0] == Do(Fold(session_id(SESSION), name, plain(size).digest))
    with pytest.raises(PeerProtocolError, match=f"{DENSE + 1} bytes, expected {DENSE} at most"):
        machine.receive("p004", plain(DENSE + 1), 1.0)


def test_other_protocols_know_no_sparse_form() -> None:
    assert sum_protocol("pairwise", True) is PROTOCOLS["pairwise"]
    assert sum_protocol("ideal") is PROTOCOLS["ideal"]
