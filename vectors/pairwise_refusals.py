"""What participants and coordinator of `pairwise` refuse, in the place of messages of a recorded session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import Message, digest
from ridotto.crypto.shamir import SHARE_BYTES
from ridotto.secagg.binding import KEYS_CONTEXT, keys_statement
from ridotto.secagg.messages import PublicKeys, Revealed
from vectors.common import LOW_ORDER, identity_of
from vectors.recording import Recording, malformed

Lie = Callable[[Any], Message]
Row = dict[str, object]


def refusals(recording: Recording, complete: bool) -> list[Row]:
    """Return what is refused. complete: the graph; of a sparse one only what differs."""
    if not complete:
        return in_a_sparse_graph(recording)
    return [
        *of_keys(recording),
        *of_shares(recording),
        *of_vectors(recording),
        *of_unmasking(recording),
        *by_participants(recording),
        *out_of_turn(recording),
    ]


def of_keys(recording: Recording) -> list[Row]:
    """Return what the coordinator refuses in step 0."""
    keys = recording.find("PublicKeys", sender="p1")
    others: Any = recording.sent[recording.find("PublicKeys", sender="p0")][0].message
    cases: list[tuple[str, Lie]] = [
        ("keys of another session", lambda m: replace(m, sid=bytes(32))),
        ("keys without a signature", lambda m: replace(m, signature=bytes(64))),
        ("keys with a signature of one changed bit", lambda m: replace(m, signature=_flipped(m.signature))),
        ("keys in the other order", lambda m: replace(m, exchange=m.mask, mask=m.exchange)),
        ("a key of low order", lambda m: _signed("p1", 1, m, exchange=LOW_ORDER)),
        ("a mask key of low order", lambda m: _signed("p1", 1, m, mask=bytes(32))),
        ("one key twice", lambda m: _signed("p1", 1, m, mask=m.exchange)),
        ("a key that another member has shown", lambda m: _signed("p1", 1, m, exchange=others.exchange)),
        ("keys as somebody else signed them", lambda _: others),
    ]
    rows = [recording.refusal(name, keys, COORDINATOR, lie) for name, lie in cases]
    again, late = recording.find("PublicKeys", sender="p3"), recording.find("SealedShares")
    return [
        *rows,
        recording.refusal("second, different keys", again, COORDINATOR, _same, sender="p0"),
        recording.refusal("keys of somebody who is no member", keys, COORDINATOR, _same, sender="p9"),
        recording.refusal("keys after the key book", keys, COORDINATOR, _same, sender="p2", after=late),
    ]


def of_shares(recording: Recording) -> list[Row]:
    """Return what the coordinator refuses in step 1."""
    shares = recording.find("SealedShares", sender="p1")
    cases: list[tuple[str, Lie]] = [
        ("shares of another session", lambda m: replace(m, sid=bytes(32))),
        ("shares for another key book", lambda m: replace(m, book=bytes(32))),
        ("one box too few", lambda m: replace(m, boxes=m.boxes[1:])),
        ("one box too many", lambda m: replace(m, boxes=(*m.boxes, m.boxes[0]))),
        ("commitments cut off", lambda m: replace(m, commitments=m.commitments[:-64])),
    ]
    rows = [recording.refusal(name, shares, COORDINATOR, lie) for name, lie in cases]
    shorter = recording.codec.header(recording.sent[shares][0].message).replace(b"\xc4\x58", b"\xc4\x57", 1)
    return [*rows, recording.refusal("a box of another size", shares, COORDINATOR, shorter)]


def of_vectors(recording: Recording) -> list[Row]:
    """Return what the coordinator refuses in steps 2 and 3."""
    vector, vote = recording.find("Masked", sender="p1"), recording.find("Consistency", sender="p1")
    honest: Any = recording.sent[vector][0].message
    rows = [
        recording.refusal("vector of another session", vector, COORDINATOR, lambda m: replace(m, sid=bytes(32))),
        recording.refusal("second, different vector", vector, COORDINATOR, _same, sender="p0"),
        recording.refusal("vote without a signature", vote, COORDINATOR, lambda m: replace(m, signature=bytes(64))),
        recording.refusal("vote of another session", vote, COORDINATOR, lambda m: replace(m, sid=bytes(32))),
        recording.refusal("vote as somebody else signed it", vote, COORDINATOR, _same, sender="p6"),
        recording.refusal("vote of somebody who has left", vote, COORDINATOR, _same, sender="p4"),
    ]
    for name, length in (("longer vector", honest.size + 1), ("shorter vector", honest.size - 1)):
        lie = recording.codec.header(replace(honest, digest=digest(bytes(length)), size=length))
        rows.append(recording.refusal(name, vector, COORDINATOR, lie, attachment=bytes(length)))
    return rows


def of_unmasking(recording: Recording) -> list[Row]:
    """Return what the coordinator refuses in step 4. p1 holds shares of p0, p1, p3, p4, p5 and p6."""
    unmask = recording.find("Unmask", sender="p1")
    forged = Revealed(0, bytes(SHARE_BYTES))
    cases: list[tuple[str, Lie]] = [
        ("unmasking in another session", lambda m: replace(m, sid=bytes(32))),
        ("a seed that was not committed to", lambda m: replace(m, seed=bytes(32))),
        ("a forged share", lambda m: replace(m, shares=(forged, *m.shares[1:]))),
        ("a share in the place of another", lambda m: replace(m, shares=_exchanged(m.shares))),
        ("a share too few", lambda m: replace(m, shares=m.shares[1:])),
        ("two shares of one owner", lambda m: replace(m, shares=(m.shares[0], *m.shares))),
        ("shares out of order", lambda m: replace(m, shares=m.shares[::-1])),
        ("a share of nobody", lambda m: replace(m, shares=(*m.shares[:-1], Revealed(2, m.shares[-1].share)))),
        ("a share and a complaint", lambda m: replace(m, unopened=(0,))),
        ("a complaint about nobody", lambda m: replace(m, unopened=(2,))),
    ]
    return [recording.refusal(name, unmask, COORDINATOR, lie) for name, lie in cases]


def by_participants(recording: Recording) -> list[Row]:
    """Return what p0 refuses of the coordinator."""
    book, delivery, survivors, evidence = (
        recording.find(kind, to="p0") for kind in ("KeyBook", "Delivery", "Survivors", "Evidence")
    )
    cases: list[tuple[str, int, Lie]] = [
        ("book of another session", book, lambda m: replace(m, sid=bytes(32))),
        ("book out of order", book, lambda m: replace(m, entries=m.entries[::-1])),
        ("book with a member twice", book, lambda m: replace(m, entries=(m.entries[0], *m.entries))),
        ("book with a member beyond the roster", book, lambda m: _entry(m, -1, member=7)),
        ("book below the minimum", book, lambda m: replace(m, entries=m.entries[:2])),
        ("book without me", book, lambda m: replace(m, entries=m.entries[1:])),
        ("book with another key of mine", book, lambda m: _entry(m, 0, exchange=m.entries[1].mask)),
        ("book with a key twice", book, lambda m: _entry(m, 1, exchange=m.entries[2].mask)),
        ("book with another's key exchanged", book, lambda m: _entry(m, 1, mask=bytes(31) + b"\x09")),
        ("book with a signature of one changed bit", book, lambda m: _entry(m, 1, signature=_flip_of(m, 1))),
        ("book with a key of low order", book, lambda m: _resigned(m, 1, "p1", LOW_ORDER)),
        ("boxes of another session", delivery, lambda m: replace(m, sid=bytes(32))),
        ("boxes out of order", delivery, lambda m: replace(m, boxes=m.boxes[::-1])),
        ("two boxes of one owner", delivery, lambda m: replace(m, boxes=(m.boxes[0], *m.boxes))),
        ("a box of mine", delivery, lambda m: replace(m, boxes=(replace(m.boxes[0], owner=0), *m.boxes[1:]))),
        ("a box of somebody outside the book", delivery, lambda m: _box(m, 1, owner=2)),
        ("fewer boxes than the threshold", delivery, lambda m: replace(m, boxes=m.boxes[:2])),
        ("survivors of another session", survivors, lambda m: replace(m, sid=bytes(32))),
        ("survivors out of order", survivors, lambda m: replace(m, included=m.included[::-1])),
        ("survivors outside the book", survivors, lambda m: replace(m, included=(0, 1, 2, 3, 6))),
        ("survivors without me", survivors, lambda m: replace(m, included=m.included[1:])),
        ("survivors below the minimum", survivors, lambda m: replace(m, included=m.included[:2])),
        ("votes of another session", evidence, lambda m: replace(m, sid=bytes(32))),
        ("votes out of order", evidence, lambda m: replace(m, votes=m.votes[::-1])),
        ("one vote twice", evidence, lambda m: replace(m, votes=(m.votes[0], *m.votes))),
        ("fewer votes than the threshold", evidence, lambda m: replace(m, votes=m.votes[:-1])),
        ("a vote without a signature", evidence, lambda m: _vote(m, 1, signature=bytes(64))),
        ("a vote under another name", evidence, lambda m: _vote(m, -1, member=5)),
        ("a vote of somebody who has left", evidence, lambda m: _vote(m, -2, member=4)),
    ]
    rows = [recording.refusal(name, number, "p0", lie) for name, number, lie in cases]
    frames = malformed(recording.codec.header(recording.sent[book][0].message), "KeyBook")
    return rows + [recording.refusal(name, book, "p0", frame) for name, frame in frames.items()]


def out_of_turn(recording: Recording) -> list[Row]:
    """Return what is refused because it comes when, or from whom, it should not."""
    book, delivery, survivors = (recording.find(kind, to="p0") for kind in ("KeyBook", "Delivery", "Survivors"))
    shares, vector = recording.find("SealedShares"), recording.find("Masked", sender="p0")
    return [
        recording.refusal("boxes before the book", delivery, "p0", _same, after=book),
        recording.refusal("survivors before the boxes", survivors, "p0", _same, after=delivery),
        recording.refusal("the book a second time", book, "p0", _same, after=delivery),
        recording.refusal("a book from another participant", book, "p0", _same, sender="p1"),
        recording.refusal("a vector before the keys are complete", vector, COORDINATOR, _same, after=1),
        recording.refusal("a message of the coordinator, to the coordinator", book, COORDINATOR, _same, sender="p0"),
        recording.refusal("shares of somebody who sent no keys", shares, COORDINATOR, _same, sender="p2"),
    ]


def in_a_sparse_graph(recording: Recording) -> list[Row]:
    """Return what p0 refuses where it has four neighbours and the threshold is three."""
    delivery: Any = recording.sent[recording.find("Delivery", to="p0")][0].message
    neighbours = {box.owner for box in delivery.boxes}
    stranger = next(index for index in range(1, 7) if index not in neighbours)
    boxes, survivors = recording.find("Delivery", to="p0"), recording.find("Survivors", to="p0")
    evidence, shares = recording.find("Evidence", to="p0"), recording.find("SealedShares", sender="p0")

    def of_strangers(message: Any) -> Message:
        kept = tuple(vote for vote in message.votes if vote.member not in sorted(neighbours)[:2])
        changed: Message = replace(message, votes=kept)
        return changed

    def from_a_stranger(message: Any) -> Message:
        found = sorted((replace(message.boxes[0], owner=stranger), *message.boxes[1:]), key=lambda box: box.owner)
        changed: Message = replace(message, boxes=tuple(found))
        return changed

    cases: list[tuple[str, int, str, Lie]] = [
        ("a box of somebody who is no neighbour", boxes, "p0", from_a_stranger),
        ("fewer boxes than the threshold", boxes, "p0", lambda m: replace(m, boxes=m.boxes[:2])),
        ("survivors without me", survivors, "p0", lambda m: replace(m, included=m.included[1:])),
        ("fewer votes of neighbours than the threshold", evidence, "p0", of_strangers),
        ("a box too few", shares, COORDINATOR, lambda m: replace(m, boxes=m.boxes[1:])),
        ("commitments for one holder too many", shares, COORDINATOR, _with_one_holder_more),
    ]
    return [recording.refusal(*case) for case in cases]


def _same(message: Any) -> Message:
    kept: Message = message
    return kept


def _flipped(signature: bytes) -> bytes:
    return bytes([signature[0] ^ 1]) + signature[1:]


def _flip_of(message: Any, place: int) -> bytes:
    return _flipped(message.entries[place].signature)


def _signed(name: str, index: int, message: Any, **changes: bytes) -> Message:
    changed: PublicKeys = replace(message, **changes)
    statement = keys_statement(changed.sid, index, changed.exchange, changed.mask)
    return replace(changed, signature=identity_of(name).sign(KEYS_CONTEXT, statement))


def _entry(message: Any, place: int, **changes: Any) -> Message:
    entries = list(message.entries)
    entries[place] = replace(entries[place], **changes)
    changed: Message = replace(message, entries=tuple(entries))
    return changed


def _resigned(message: Any, place: int, name: str, exchange: bytes) -> Message:
    entry = message.entries[place]
    statement = keys_statement(message.sid, entry.member, exchange, entry.mask)
    signature = identity_of(name).sign(KEYS_CONTEXT, statement)
    return _entry(message, place, exchange=exchange, signature=signature)


def _box(message: Any, place: int, **changes: Any) -> Message:
    boxes = list(message.boxes)
    boxes[place] = replace(boxes[place], **changes)
    changed: Message = replace(message, boxes=tuple(boxes))
    return changed


def _vote(message: Any, place: int, **changes: Any) -> Message:
    votes = list(message.votes)
    votes[place] = replace(votes[place], **changes)
    changed: Message = replace(message, votes=tuple(votes))
    return changed


def _exchanged(shares: tuple[Revealed, ...]) -> tuple[Revealed, ...]:
    first, second, *rest = shares
    return (replace(first, share=second.share), replace(second, share=first.share), *rest)


def _with_one_holder_more(message: Any) -> Message:
    changed: Message = replace(message, commitments=message.commitments + bytes(64))
    return changed
