"""What every store must do. A new one adds its name to STORES and passes everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ridotto.coordinator.store import (
    Change,
    LogRow,
    MemoryStore,
    Participant,
    RowKind,
    Store,
    StoredOpening,
    StoredReceipt,
    StoredRecord,
    TakenError,
    TokenError,
)
from ridotto.coordinator.store_sql import SqlStore

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqlStore.in_file(folder / "store.sqlite"),
}
DURABLE = ("sqlite",)

ANNA = Participant("anna", b"a" * 32, 1.5)
BRUNO = Participant("bruno", b"b" * 32, 2.5)
ROWS = (
    LogRow(0, 10.0, RowKind.RECEIVE, "anna", b"\x01frame"),
    LogRow(1, 11.5, RowKind.EXPIRE),
    LogRow(2, 12.0, RowKind.SEAL, "", b"salt"),
    LogRow(3, 12.0, RowKind.RECEIVE, "self", b"\x00"),
)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = STORES[request.param](tmp_path)
    yield made
    made.close()


def test_is_empty_at_first(store: Store) -> None:
    assert (store.participants(), store.values(), store.log(), store.sums(), store.models(), store.records()) == (
        {},
        {},
        [],
        {},
        {},
        [],
    )


def test_keeps_participants(store: Store) -> None:
    store.enrol(ANNA, None)
    store.enrol(BRUNO, None)
    assert store.participants() == {"anna": ANNA, "bruno": BRUNO}


@pytest.mark.parametrize(
    "other",
    [ANNA, Participant("anna", b"x" * 32, 3.0), Participant("other", ANNA.key, 3.0)],
    ids=("both", "name", "key"),
)
def test_refuses_a_name_or_key_that_is_taken(store: Store, other: Participant) -> None:
    store.enrol(ANNA, None)
    with pytest.raises(TakenError, match=other.name):
        store.enrol(other, None)
    assert store.participants() == {"anna": ANNA}


def test_uses_a_token_once(store: Store) -> None:
    store.add_tokens((b"t" * 32, b"t" * 32))
    store.enrol(ANNA, b"t" * 32)
    with pytest.raises(TokenError, match="used"):
        store.enrol(BRUNO, b"t" * 32)
    assert store.participants() == {"anna": ANNA}


def test_does_not_bring_a_used_token_back(store: Store) -> None:
    store.add_tokens((b"t" * 32,))
    store.enrol(ANNA, b"t" * 32)
    store.add_tokens((b"t" * 32, b"u" * 32))
    with pytest.raises(TokenError):
        store.enrol(BRUNO, b"t" * 32)
    store.enrol(BRUNO, b"u" * 32)


def test_refuses_an_unknown_token(store: Store) -> None:
    with pytest.raises(TokenError, match="unknown"):
        store.enrol(ANNA, b"t" * 32)
    assert store.participants() == {}


def test_does_not_use_up_the_token_of_a_refused_enrolment(store: Store) -> None:
    store.add_tokens((b"t" * 32,))
    store.enrol(ANNA, None)
    with pytest.raises(TakenError):
        store.enrol(Participant("anna", b"x" * 32, 3.0), b"t" * 32)
    store.enrol(BRUNO, b"t" * 32)


def test_keeps_what_is_committed(store: Store) -> None:
    record = StoredRecord(3, 2, b"{}")
    store.commit(
        Change(log=ROWS, sums={b"s" * 32: "one"}, values={"run": b"1"}, models={b"m" * 32: 0}, records=(record,))
    )
    assert store.log() == list(ROWS)
    assert store.sums() == {b"s" * 32: "one"}
    assert store.values() == {"run": b"1"}
    assert store.models() == {b"m" * 32: 0}
    assert store.records() == [record]


def test_appends_replaces_and_removes(store: Store) -> None:
    store.commit(Change(log=ROWS[:1], sums={b"s" * 32: "one", b"t" * 32: "two"}, values={"run": b"1", "other": b"x"}))
    store.commit(Change(log=ROWS[1:], sums={b"s" * 32: "three", b"t" * 32: None}, values={"run": b"2"}))
    assert store.log() == list(ROWS)
    assert store.sums() == {b"s" * 32: "three"}
    assert store.values() == {"run": b"2", "other": b"x"}


def test_begins_a_new_log(store: Store) -> None:
    store.commit(Change(log=ROWS, sums={b"s" * 32: "one"}))
    store.commit(Change(clear_log=True, log=ROWS[:1], sums={b"s" * 32: None}))
    assert store.log() == list(ROWS[:1])
    assert store.sums() == {}


def test_keeps_receipts_and_finds_them_by_round(store: Store) -> None:
    receipts = [StoredReceipt(attempt, number, b"f" * 32, b"p" * 32) for attempt, number in ((1, 1), (2, 1), (3, 2))]
    for receipt in reversed(receipts):
        store.commit(Change(receipts=(receipt,)))
    assert store.receipts() == receipts
    assert store.receipts(1) == receipts[:2]
    assert store.receipts(7) == []


def test_keeps_what_is_known_of_opened_sums(store: Store) -> None:
    openings = [StoredOpening(bytes([one]) * 32, one, b"s" * 32, b"leaves") for one in (1, 2)]
    store.commit(Change(openings=tuple(openings)))
    assert [store.opening(one.sid) for one in openings] == openings
    assert store.opening(b"x" * 32) is None


def test_finds_records_by_round(store: Store) -> None:
    records = [StoredRecord(attempt, number, b"%d" % attempt) for attempt, number in ((1, 1), (2, 1), (3, 2))]
    for record in reversed(records):
        store.commit(Change(records=(record,)))
    assert store.records() == records
    assert store.records(1) == records[:2]
    assert store.records(7) == []
    assert store.records(after=records[0].attempt) == records[1:]
    assert store.records(after=records[0].attempt, limit=1) == records[1:2]
    assert store.records(after=99) == []


@pytest.mark.parametrize("name", DURABLE)
def test_survives_being_opened_again(name: str, tmp_path: Path) -> None:
    store = STORES[name](tmp_path)
    store.enrol(ANNA, None)
    store.commit(Change(log=ROWS, values={"run": b"1"}))
    # Not closed: a killed process does not close its store either.
    again = STORES[name](tmp_path)
    assert again.participants() == {"anna": ANNA}
    assert again.log() == list(ROWS)
    assert again.values() == {"run": b"1"}
    again.close()
    store.close()


@pytest.mark.parametrize("name", DURABLE)
def test_changes_nothing_when_a_commit_fails(name: str, tmp_path: Path) -> None:
    store = STORES[name](tmp_path)
    store.commit(Change(log=ROWS[:1], values={"run": b"1"}))
    with pytest.raises(Exception, match="could not write"):
        store.commit(Change(log=ROWS[:1], values={"run": b"2"}, sums={b"s" * 32: "one"}))
    assert (store.log(), store.values(), store.sums()) == ([ROWS[0]], {"run": b"1"}, {})
    store.close()
