"""Sessions made ahead, tickets, and many threads on one world."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ridotto import infer
from ridotto.errors import ConfigError, DataError, PeerProtocolError
from ridotto.infer import reference
from ridotto.infer.messages import Dealt, Failed, Prepare
from ridotto.infer.pool import KEEP_LIMIT, Pool, Ways
from tests.infer.models import dense, inputs


class Bench:
    """Sessions numbered as they are asked for; `dead` ones were kept for too long."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.waited: list[bytes] = []
        self.dead: set[bytes] = set()

    def ask(self) -> bytes:
        self.asked.append(b"%d" % len(self.asked))
        return self.asked[-1]

    def pool(self) -> Pool:
        return Pool(Ways(self.ask, self.waited.append, self.dead.__contains__))


def test_a_pool_asks_for_what_was_used_and_never_for_more() -> None:
    bench = Bench()
    pool = bench.pool()
    pool.keep(2)
    assert (bench.asked, bench.waited) == ([b"0", b"1"], [])
    pool.fill()
    assert pool.take()[0] == b"0"
    pool.fill()
    assert (bench.asked, bench.waited) == ([b"0", b"1", b"2"], [b"0"])
    pool.keep(0)
    assert [pool.take()[0] for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_session_that_died_in_the_pool_is_replaced() -> None:
    bench = Bench()
    pool = bench.pool()
    pool.keep(2)
    bench.dead |= {b"0", b"1"}
    assert pool.take()[0] == b"2"


def test_what_was_prepared_is_not_waited_for_again() -> None:
    bench = Bench()
    pool = bench.pool()
    pool.prepare()
    assert pool.take()[0] == b"0"
    assert bench.waited == [b"0"]


@pytest.mark.parametrize("count", [-1, KEEP_LIMIT + 1])
def test_a_pool_is_bounded(count: int) -> None:
    with pytest.raises(ConfigError, match=f"a pool keeps 0 to {KEEP_LIMIT} sessions"):
        Bench().pool().keep(count)


def test_queries_use_the_sessions_that_are_kept_ready() -> None:
    graph = dense(8, 6, 3)
    prepared: list[bytes] = []

    def tap(_sender: str, to: str, message: object) -> tuple[object, ...]:
        if isinstance(message, Prepare) and to == "dealer":
            prepared.append(message.session)
        return (message,)

    with infer.local(tap=tap) as world:  # type: ignore[arg-type]
        secret_model = world.share(graph)
        secret_model.keep_ready(2, 3)
        x = inputs(graph, 2)
        for _ in range(4):
            np.testing.assert_array_equal(secret_model.predict(x), reference.forward(graph, x).argmax(axis=1))
    # What was asked for after the last query is still on its way: nobody waited for anything since.
    assert len(prepared) == 3 + 3


def test_a_dealer_that_fails_is_named_and_the_next_query_goes_on() -> None:
    graph = dense(8, 6, 3)
    dry = [True]

    def tap(sender: str, to: str, message: object) -> tuple[object, ...]:
        if isinstance(message, Dealt) and dry[0]:
            # What a party says when it waited in vain.
            return ()
        return (message,)

    with infer.local(tap=tap) as world:  # type: ignore[arg-type]
        secret_model = world.share(graph)
        session = world.ask(secret_model, 2, "class")
        link = world._link
        link._inbox.append(("party-0", Failed(session, "dealer", "nothing came for 120 s")))  # type: ignore[attr-defined]
        with pytest.raises(PeerProtocolError, match=r"dealer: nothing came for 120 s \(says party-0\)"):
            world.wait(session)
        dry[0] = False
        assert secret_model.predict(inputs(graph, 2)).shape == (2,)


def test_threads_share_a_world() -> None:
    graph = dense(8, 6, 3)
    x = inputs(graph, 24)
    expected = reference.forward(graph, x).argmax(axis=1)
    with infer.local() as world, ThreadPoolExecutor(6) as pool:
        secret_model = world.share(graph)
        secret_model.keep_ready(1, 3)
        found = list(pool.map(lambda row: secret_model.predict(row[None])[0], x))
    np.testing.assert_array_equal(found, expected)


def test_who_has_a_ticket_may_ask() -> None:
    graph = dense(8, 6, 3)
    x = inputs(graph, 2)
    with infer.local() as world:
        ticket = world.share(graph).ticket()
        admitted = world.admit(ticket)
        np.testing.assert_array_equal(admitted.predict(x), reference.forward(graph, x).argmax(axis=1))
        admitted.forget()
        with pytest.raises(PeerProtocolError, match="names a model that"):
            world.admit(ticket).predict(x)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"ridotto": "infer ticket 2"}'])
def test_what_is_no_ticket_is_refused(data: bytes) -> None:
    with infer.local() as world, pytest.raises(DataError, match="no ticket of a shared model"):
        world.admit(data)


def test_the_form_of_comparisons_follows_the_round_trip() -> None:
    graph = dense(20, 16, 10)
    x = inputs(graph, 1)
    forms: list[str] = []

    def tap(_sender: str, to: str, message: object) -> tuple[object, ...]:
        if isinstance(message, Prepare) and to == "dealer":
            forms.append(message.comparison)
        return (message,)

    with infer.local(tap=tap) as world:  # type: ignore[arg-type]
        secret_model = world.share_model(graph)
        expected = reference.forward(graph, x).argmax(axis=1)
        np.testing.assert_array_equal(secret_model.predict(x), expected)
        assert secret_model.stats is not None
        assert secret_model.stats.round_trip_s > 0
        world.round_trip_s = 0.04
        np.testing.assert_array_equal(secret_model.predict(x), expected)
        world.share_model(graph, comparison="boolean").predict(x)
        world.share_model(graph, comparison="fss").predict(x)
    assert forms[0] == "boolean"
    assert forms[1:] == ["fss", "boolean", "fss"]
