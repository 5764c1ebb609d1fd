"""Honest participants against a coordinator that hypothesis plays, with one corrupt member on its side.

The coordinator decides who is shown which key book, boxes, survivor list and evidence, in any order, honest, changed
or replayed; it knows everything that p004 knows and signs as p004 what it likes. What must hold: it never learns both
secrets of an honest participant, neither what was refused nor a kill between two steps changes what a participant
does, and nothing but PeerProtocolError leaves a machine.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Send
from ridotto.core.wire import Message
from ridotto.errors import PeerProtocolError
from ridotto.rounds.messages import Announce, Closed, Train
from ridotto.rounds.plan import Pairwise
from ridotto.secagg.binding import CONSISTENCY_CONTEXT, book_root, survivors_statement
from ridotto.secagg.graph import complete_threshold
from ridotto.secagg.messages import (
    Box,
    Consistency,
    Delivery,
    Evidence,
    KeyBook,
    KeyEntry,
    Masked,
    PublicKeys,
    SealedShares,
    Survivors,
    Unmask,
    Vote,
)
from ridotto.secagg.session import Session, session_id
from tests.conformance.world import identity
from tests.fuzz.mutations import changed, examples, hostile
from tests.rounds.federation import Federation, make_plan, names

pytestmark = pytest.mark.fuzz

CORRUPT = 4
HONEST = range(4)
CORRUPT_MEMBERS = 1
GROUPS = st.sets(st.integers(0, 4), max_size=5)
ANYONE = st.sampled_from([{0, 1, 2, 3, 4}, {0, 1}, {2, 3}, {0, 1, 2}, {1, 2, 3}, {3}])
"""To whom something is said: often to everyone, or to one of two halves."""


class HostileCoordinator(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.federation = Federation(make_plan(5, protocol=Pairwise(corrupt=0.2), minimum=3))
        self.federation.begin()
        effects = self.federation.coordinator().start(0.0)
        self.announce: Announce = next(e.message for e in effects if isinstance(e, Send))
        self.session: Session = self.announce.session
        self.sid = session_id(self.session)
        self.machines = {i: self.federation.participant(name) for i, name in enumerate(names(5))}
        self.told: dict[int, list[tuple[str, Message]]] = {i: [] for i in range(5)}
        self.said: dict[int, list[list[Effect]]] = {i: [] for i in range(5)}
        self.keys: dict[int, PublicKeys] = {}
        self.shares: dict[int, SealedShares] = {}
        self.books: dict[bytes, tuple[KeyEntry, ...]] = {}
        self.votes: dict[int, tuple[bytes, tuple[int, ...], bytes]] = {}
        self.unmasks: dict[int, tuple[tuple[int, ...], Unmask]] = {}
        self.shown: dict[int, tuple[int, ...]] = {}
        self.spoken: list[Message] = [self.announce]

    # --- what the coordinator may say ---------------------------------------------------------------------------

    @rule(to=ANYONE)
    def announces(self, to: set[int]) -> None:
        for member in to:
            self.say(member, self.announce)

    @precondition(lambda self: self.keys)
    @rule(to=ANYONE, leave_out=st.sampled_from([(), (), (0,), (3,), (1, 4)]))
    def shows_a_book(self, to: set[int], leave_out: tuple[int, ...]) -> None:
        entries = tuple(
            KeyEntry(m, k.exchange, k.mask, k.signature) for m, k in sorted(self.keys.items()) if m not in leave_out
        )
        self.books[book_root(self.sid, entries)] = entries
        for member in to:
            self.say(member, KeyBook(self.sid, entries))

    @precondition(lambda self: self.shares)
    @rule(to=ANYONE, leave_out=st.sampled_from([(), (), (), (0,), (2, 3)]))
    def delivers(self, to: set[int], leave_out: tuple[int, ...]) -> None:
        for member in to:
            boxes = []
            for owner, message in sorted(self.shares.items()):
                holders = [entry.member for entry in self.books[message.book]]
                if owner not in (member, *leave_out) and member in holders:
                    place = holders.index(member)
                    sealed = message.boxes[[holder for holder in holders if holder != owner].index(member)]
                    commitments = message.commitments[64 * place : 64 * place + 64]
                    boxes.append(Box(owner, sealed, commitments[:32], commitments[32:]))
            self.say(member, Delivery(self.sid, tuple(boxes)))

    @precondition(lambda self: self.shares)
    @rule(to=ANYONE, included=st.one_of(st.just({0, 1, 2, 3, 4}), GROUPS))
    def names_survivors(self, to: set[int], included: set[int]) -> None:
        for member in to:
            self.say(member, Survivors(self.sid, tuple(sorted(included))))

    @precondition(lambda self: self.votes)
    @rule(to=ANYONE)
    def shows_evidence(self, to: set[int]) -> None:
        """Give everyone the most that there is: all signatures over the list that was shown to it, and p004's own."""
        for member in to & set(self.shown):
            book = self.votes[member][0] if member in self.votes else next(iter(self.books))
            votes = {
                voter: signature
                for voter, (voted_book, included, signature) in self.votes.items()
                if (voted_book, included) == (book, self.shown[member])
            }
            statement = survivors_statement(self.sid, book, self.shown[member])
            votes[CORRUPT] = identity(names(5)[CORRUPT]).sign(CONSISTENCY_CONTEXT, statement)
            self.say(member, Evidence(self.sid, tuple(Vote(v, s) for v, s in sorted(votes.items()))))

    @rule(steps=st.integers(1, 6))
    def behaves(self, steps: int) -> None:
        """Go on honestly for some steps, so that late ones are reached too."""
        everyone = {0, 1, 2, 3, 4}
        for step in (
            lambda: self.announces(everyone),
            lambda: self.keys and self.shows_a_book(everyone, ()),
            lambda: self.shares and self.delivers(everyone, ()),
            lambda: self.shares and self.names_survivors(everyone, everyone),
            lambda: self.votes and self.shows_evidence(everyone),
        )[:steps]:
            step()

    @rule(to=st.sampled_from(HONEST), pick=st.integers(0, 99), data=st.data())
    def changes(self, to: int, pick: int, data: st.DataObject) -> None:
        message = data.draw(changed(self.spoken[pick % len(self.spoken)]))
        note(f"to {to}: {message}")
        self.say(to, message)

    @rule(to=st.sampled_from(HONEST), pick=st.integers(0, 99))
    def replays(self, to: int, pick: int) -> None:
        self.say(to, self.spoken[pick % len(self.spoken)])

    @rule(to=st.sampled_from(HONEST), pick=st.integers(0, 99), data=st.data())
    def spoils(self, to: int, pick: int, data: st.DataObject) -> None:
        frame = data.draw(hostile([self.federation.codec.encode(self.spoken[pick % len(self.spoken)])]))
        try:
            message, _ = self.federation.codec.decode(frame, COORDINATOR)
        except PeerProtocolError:
            return
        self.say(to, message)

    @rule(to=st.sampled_from(HONEST), sid=st.booleans())
    def closes(self, to: int, sid: bool) -> None:
        self.say(to, Closed(self.sid if sid else b"x" * 32, b"m" * 32))

    @rule(to=st.sampled_from(HONEST), sender=st.sampled_from(["p001", SELF, ""]), pick=st.integers(0, 99))
    def somebody_else_speaks(self, to: int, sender: str, pick: int) -> None:
        message = self.spoken[pick % len(self.spoken)]
        with pytest.raises(PeerProtocolError):
            self.machines[to].receive(sender, message, 0.0)

    # --- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def no_honest_participant_loses_both_secrets(self) -> None:
        for owner in HONEST if hasattr(self, "shares") else ():
            if owner in self.shares:
                assert not (self.seed_is_known(owner) and self.mask_key_is_known(owner)), names(5)[owner]

    @invariant()
    def each_participant_masks_and_reveals_once(self) -> None:
        for said in getattr(self, "said", {}).values():
            kinds = [type(e.message) for effects in said for e in effects if isinstance(e, Send)]
            assert kinds.count(Masked) <= 1
            assert kinds.count(Unmask) <= 1

    def teardown(self) -> None:
        """Kill everyone: who is built again and told what it accepted says the same again, bit for bit."""
        for member in HONEST if hasattr(self, "machines") else ():
            fresh = self.federation.participant(names(5)[member])
            again = [fresh.receive(sender, message, 0.0) for sender, message in self.told[member]]
            for one, other in zip(again, self.said[member], strict=True):
                assert repr(one) == repr(other)
                assert [e.message for e in one if isinstance(e, Send)] == [
                    e.message for e in other if isinstance(e, Send)
                ]

    def seed_is_known(self, owner: int) -> bool:
        return owner in self.unmasks or self.revealed(owner, survived=True) >= self.threshold(owner)

    def mask_key_is_known(self, owner: int) -> bool:
        return self.revealed(owner, survived=False) >= self.threshold(owner)

    def revealed(self, owner: int, *, survived: bool) -> int:
        """Count shares of one secret: what honest members revealed, and p004's, which has one of both."""
        holders = {entry.member for entry in self.books[self.shares[owner].book]}
        count = int(CORRUPT in holders)
        for holder, (included, unmask) in self.unmasks.items():
            gave = any(revealed.owner == owner for revealed in unmask.shares)
            count += holder != CORRUPT and gave and (owner in included) == survived
        return count

    def threshold(self, owner: int) -> int:
        return complete_threshold(len(self.books[self.shares[owner].book]), CORRUPT_MEMBERS)

    # --- how it is done -----------------------------------------------------------------------------------------

    def say(self, member: int, message: Any) -> None:
        """Say something over the wire, which refuses what no socket could carry."""
        try:
            header = msgspec.msgpack.encode(message)
            frame = b"\x01" + len(header).to_bytes(4, "little") + header
            decoded, _ = self.federation.codec.decode(frame, COORDINATOR)
        except (PeerProtocolError, OverflowError, TypeError, UnicodeEncodeError):
            return
        self.spoken.append(decoded)
        self.tell(member, COORDINATOR, decoded)

    def tell(self, member: int, sender: str, message: Message) -> None:
        try:
            effects = self.machines[member].receive(sender, message, 0.0)
        except PeerProtocolError as refusal:
            note(f"p00{member} refuses: {refusal.why}")
            return
        self.told[member].append((sender, message))
        self.said[member].append(effects)
        if isinstance(message, Survivors):
            self.shown[member] = message.included
        for effect in effects:
            if isinstance(effect, Do) and isinstance(effect.task, Train):
                self.tell(member, SELF, self.federation.trained(names(5)[member]))
            elif isinstance(effect, Send):
                self.hear(member, effect.message)

    def hear(self, member: int, message: Message) -> None:
        match message:
            case PublicKeys():
                self.keys[member] = message
            case SealedShares():
                self.shares[member] = message
            case Consistency():
                self.votes[member] = (self.shares[member].book, self.shown[member], message.signature)
            case Unmask():
                self.unmasks[member] = (self.shown[member], message)


TestFuzzParticipants = HostileCoordinator.TestCase
TestFuzzParticipants.settings = examples(40, 2_000)


def test_the_bench_can_finish_a_round() -> None:
    """An honest coordinator gets every seed and no mask key."""
    machine = HostileCoordinator()
    machine.begin()
    machine.behaves(6)
    assert set(machine.unmasks) == {0, 1, 2, 3, 4}
    assert all(machine.seed_is_known(owner) and not machine.mask_key_is_known(owner) for owner in HONEST)
    machine.no_honest_participant_loses_both_secrets()
    machine.teardown()


def test_the_bench_would_see_a_threshold_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a plain majority of 3 instead of 4, two lists of two honest members and p004 each open everything."""
    for module in ("ridotto.secagg.pairwise.group", __name__):
        monkeypatch.setattr(f"{module}.complete_threshold", lambda present, corrupt: present // 2 + 1)
    machine = HostileCoordinator()
    machine.begin()
    machine.behaves(3)
    machine.names_survivors({0, 1}, {0, 1, 4})
    machine.names_survivors({2, 3}, {2, 3, 4})
    machine.shows_evidence({0, 1, 2, 3})
    with pytest.raises(AssertionError):
        machine.no_honest_participant_loses_both_secrets()
