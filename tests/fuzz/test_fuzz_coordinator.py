"""The coordinator's machine under arbitrary interleavings of honest, changed and replayed messages.

Eight participants in two sessions of four talk to one `CoordinatorRound` over a network that hypothesis plays: it
delivers in any order, loses, repeats, changes, relabels, and lets the clock jump.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Envelope, Finish, Machine, Send
from ridotto.core.wire import Message, digest
from ridotto.errors import PeerProtocolError
from ridotto.rounds.messages import Apply, Decline, Discard, Merge, Train
from ridotto.rounds.plan import Committee, Ideal, Oneshot, Pairwise
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.messages import MaskedVector
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate, Settle
from ridotto.secagg.messages import Masked
from ridotto.secagg.oneshot.messages import Contribution
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.tasks import Fold, Open, Opened
from tests.fuzz.mutations import changed, examples, hostile
from tests.rounds.federation import Federation, make_plan, names

pytestmark = pytest.mark.fuzz

JUMPS = [0.0, 0.1, 5.0, 11.0, 700.0]
"""Seconds that pass at once: a step has 10, training 600."""


class CoordinatorUnderAttack(RuleBasedStateMachine):
    """Hold the invariants of one attempt, whatever the network does."""

    protocol: Any = Pairwise(corrupt=0.0, shard_size=4)

    @initialize()
    def begin(self) -> None:
        self.federation = Federation(make_plan(8, protocol=self.protocol, minimum=2))
        self.federation.begin()
        self.now = 0.0
        self.machine = self.federation.coordinator()
        self.log: list[tuple[Any, ...]] = []
        self.effects: list[list[Effect]] = []
        self.flying: list[Envelope] = []
        self.past: list[Envelope] = []
        self.folded: Counter[tuple[bytes, str]] = Counter()
        self.opened: Counter[bytes] = Counter()
        self.answers: dict[bytes, Opened] = {}
        self.ended: Counter[bytes] = Counter()
        self.merged = 0
        self.finished: list[Finish] = []
        self.participants: dict[str, Machine] = {name: self.federation.participant(name) for name in names(8)}
        helpers = [member.name for member in self.federation.attempt.helpers]
        self.participants |= {name: self.federation.helper(name) for name in helpers}
        self._tell("start")

    # --- what the network may do ------------------------------------------------------------------------------

    @precondition(lambda self: self.flying)
    @rule(pick=st.integers(0, 99), again=st.booleans())
    def deliver(self, pick: int, again: bool) -> None:
        at = pick % len(self.flying)
        envelope = self.flying[at] if again else self.flying.pop(at)
        self.past.append(envelope)
        self._hand_over(envelope)

    @precondition(lambda self: self.flying)
    @rule(count=st.integers(2, 40))
    def deliver_many(self, count: int) -> None:
        """Let honest traffic flow, so that late steps are reached too."""
        for _ in range(count):
            if self.flying:
                self.deliver(0, again=False)

    @precondition(lambda self: self.flying)
    @rule(pick=st.integers(0, 99))
    def lose(self, pick: int) -> None:
        self.flying.pop(pick % len(self.flying))

    @precondition(lambda self: self.past)
    @rule(pick=st.integers(0, 99), sender=st.sampled_from([*names(8), "h000", "mallory", ""]))
    def replay(self, pick: int, sender: str) -> None:
        """Show a message again, perhaps under another name."""
        envelope = self.past[pick % len(self.past)]
        self._hand_over(dataclasses.replace(envelope, to=COORDINATOR, sender=sender or envelope.sender))

    @precondition(lambda self: self.flying or self.past)
    @rule(pick=st.integers(0, 99), data=st.data())
    def change(self, pick: int, data: st.DataObject) -> None:
        """Change a field of a message on its way to the coordinator."""
        sources = [e for e in self.flying + self.past if e.to == COORDINATOR]
        if sources:
            envelope = sources[pick % len(sources)]
            message = data.draw(changed(envelope.message))
            note(f"{envelope.sender} says {message}")
            self._hand_over(dataclasses.replace(envelope, message=message))

    @precondition(lambda self: self.past)
    @rule(pick=st.integers(0, 99), data=st.data())
    def spoil(self, pick: int, data: st.DataObject) -> None:
        """Change the bytes of a frame."""
        envelope = self.past[pick % len(self.past)]
        frame = data.draw(hostile([self.federation.codec.encode(envelope.message, envelope.attachment)]))
        self._decode_and_take(envelope.sender, frame)

    @precondition(lambda self: self.past)
    @rule(pick=st.integers(0, 99), vector=st.binary(max_size=80))
    def another_vector(self, pick: int, vector: bytes) -> None:
        """Send bytes that are no masked vector of this participant under a message that names them correctly."""
        envelope = self.past[pick % len(self.past)]
        size = getattr(envelope.message, "size", None)
        if size is not None:
            vector = vector.ljust(size, b"\xff")[:size]
            fields = {"digest": digest(vector), "sid": envelope.message.sid}
            message = type(envelope.message)(size=size, **fields)
            self._hand_over(dataclasses.replace(envelope, message=message, attachment=vector))

    @rule(name=st.sampled_from(names(8)), own=st.booleans())
    def decline(self, name: str, own: bool) -> None:
        sids = list(self.machine._sessions)
        sid = self.machine._sid_of[name] if own else sids[0]
        self._hand_over(Envelope(name, COORDINATOR, Decline(sid, "no"), None, self.now))

    @rule(seconds=st.sampled_from(JUMPS))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._tell("expire")

    # --- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def each_vector_is_folded_once(self) -> None:
        assert all(count == 1 for count in getattr(self, "folded", Counter()).values())

    @invariant()
    def each_sum_is_opened_once_and_the_round_finishes_once(self) -> None:
        assert all(count == 1 for count in getattr(self, "opened", Counter()).values())
        assert len(getattr(self, "finished", [])) <= 1

    @invariant()
    def each_sum_is_merged_or_discarded_once(self) -> None:
        assert all(count == 1 for count in getattr(self, "ended", Counter()).values())

    def teardown(self) -> None:
        """Time alone ends every round, once; and the accepted inputs alone lead to the same effects."""
        if not hasattr(self, "machine"):
            return
        for _ in range(12):
            self.wait(700.0)
        assert len(self.finished) == 1
        assert set(self.ended) == set(self.machine.sessions)
        fresh = self.federation.coordinator()
        again = [self._call(fresh, *entry) for entry in self.log]
        assert [comparable(effects) for effects in again] == [comparable(effects) for effects in self.effects]

    # --- how it is done ---------------------------------------------------------------------------------------

    def _hand_over(self, envelope: Envelope) -> None:
        if envelope.to == COORDINATOR:
            try:
                frame = self.federation.codec.encode(envelope.message, envelope.attachment)
            except (OverflowError, TypeError, UnicodeEncodeError):
                return
            self._decode_and_take(envelope.sender, frame)
        else:
            self._to_participant(envelope.to, envelope.sender, envelope.message)

    def _decode_and_take(self, sender: str, frame: bytes) -> None:
        try:
            message, attachment = self.federation.codec.decode(frame, sender)
            self._tell("receive", sender, message, attachment=attachment)
        except PeerProtocolError as refusal:
            note(f"refused: {refusal}")

    def _to_participant(self, name: str, sender: str, message: Message) -> None:
        machine = self.participants[name]
        try:
            effects = machine.receive(sender, message, self.now)
        except PeerProtocolError:
            return
        for effect in effects:
            match effect:
                case Send():
                    self.flying.append(Envelope(name, effect.to, effect.message, effect.attachment, self.now))
                case Do(Train()):
                    self._to_participant(name, SELF, self.federation.trained(name))
                case Do(Encapsulate() as task):
                    self._to_participant(name, SELF, encapsulate_all(task))
                case Do(SumMasks() as task):
                    self._to_participant(name, SELF, sum_masks(task))

    def _tell(self, what: str, *arguments: Any, attachment: Any = None) -> None:
        entry = (what, *arguments, self.now)
        effects = self._call(self.machine, *entry)
        self.log.append(entry)
        self.effects.append(effects)
        for effect in effects:
            self._carry_out(effect, attachment)

    def _call(self, machine: Machine, what: str, *arguments: Any) -> list[Effect]:
        return getattr(machine, what)(*arguments)

    def _carry_out(self, effect: Effect, attachment: Any) -> None:
        vault, plan = self.federation.vault, self.federation.plan
        match effect:
            case Send(to, message):
                self.flying.append(Envelope(COORDINATOR, to, message, None, self.now))
            case Do(Fold(sid, sender, _)):
                self.folded[sid, sender] += 1
                vault.fold(sid, attachment, sender)
            case Do(Settle() as task):
                vault.settle(task)
            case Do(Keep() as task):
                vault.keep(task, attachment)
            case Do(Unmask() as task):
                self._open(task)
            case Do(OpenCiphers() as task):
                assert task.contributions >= plan.least
                self._open(task)
            case Do(Open(sid, _) as task):
                assert sum(1 for folded, _ in self.folded if folded == sid) >= plan.least
                self._open(task)
            case Do(Merge(sid, contributions) as task):
                self.ended[sid] += 1
                assert (self.answers[sid].zero, self.answers[sid].count) == (True, contributions)
                self.merged += contributions
                vault.close(task)
                assert vault.merged == self.merged
            case Do(Discard(sid) as task):
                self.ended[sid] += 1
                vault.close(task)
                assert sid not in vault.sums
            case Do(Apply() as task):
                self._tell("receive", SELF, vault.perform(task))
            case Finish():
                self.finished.append(effect)

    def _open(self, task: Open | OpenCiphers | Unmask) -> None:
        self.opened[task.sid] += 1
        answer = self.federation.vault.perform(task)
        assert isinstance(answer, Opened)
        self.answers[task.sid] = answer
        self._tell("receive", SELF, answer)


def comparable(effects: list[Effect]) -> list[Any]:
    """Errors are equal if they say the same."""
    return [repr(effect) if isinstance(effect, Finish) else effect for effect in effects]


class IdealCoordinatorUnderAttack(CoordinatorUnderAttack):
    protocol = Ideal()


class OneshotCoordinatorUnderAttack(CoordinatorUnderAttack):
    protocol = Oneshot(corrupt=0.0, shard_size=4)


class CommitteeCoordinatorUnderAttack(CoordinatorUnderAttack):
    protocol = Committee(corrupt=0.0, shard_size=4, replicas=2)


class HybridCoordinatorUnderAttack(CoordinatorUnderAttack):
    protocol = Committee(corrupt=0.0, shard_size=4, replicas=2, seal="hybrid")


TestFuzzCoordinator = CoordinatorUnderAttack.TestCase
TestFuzzCoordinator.settings = examples(25, 1_500)
TestFuzzIdealCoordinator = IdealCoordinatorUnderAttack.TestCase
TestFuzzIdealCoordinator.settings = examples(15, 500)
TestFuzzOneshotCoordinator = OneshotCoordinatorUnderAttack.TestCase
TestFuzzOneshotCoordinator.settings = examples(10, 500)
TestFuzzCommitteeCoordinator = CommitteeCoordinatorUnderAttack.TestCase
TestFuzzCommitteeCoordinator.settings = examples(10, 500)
TestFuzzHybridCoordinator = HybridCoordinatorUnderAttack.TestCase
TestFuzzHybridCoordinator.settings = examples(5, 500)


@pytest.mark.parametrize(
    ("attacked", "kind"),
    [
        (CoordinatorUnderAttack, Masked),
        (OneshotCoordinatorUnderAttack, Contribution),
        (CommitteeCoordinatorUnderAttack, MaskedVector),
        (HybridCoordinatorUnderAttack, MaskedVector),
    ],
)
def test_the_bench_can_finish_a_round(attacked: type[CoordinatorUnderAttack], kind: type[Message]) -> None:
    """What the fuzzer does by chance, honest delivery does for certain: both sums are opened."""
    machine = attacked()
    machine.begin()
    while machine.flying:
        machine.deliver(0, again=False)
    assert machine.finished[0].error is None
    assert len(machine.opened) == 2
    assert len(machine.folded) == 8
    assert any(isinstance(envelope.message, kind) for envelope in machine.past)
    machine.teardown()
