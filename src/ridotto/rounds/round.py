"""One round, both halves: what a round does, in order.

    coordinator                                      participant
    Announce: plan, model's digest, roster      ->
                                                     check signature, plan, roster and model against the own policy
                                                <-   Decline, or nothing yet
                                                     train on the model, encode the update
         ...  the secure sum, `secagg`  ...     <->  ...
    Merge: an opened sum -> into the round's total
    Apply: total -> next model
    Closed: the next model's digest             ->

The cohort is cut into sessions; each has its own sum. A session that fails costs its members' contributions only; the
round fails when no session was opened. A robust rule looks at every sum by itself, so its plans have no total.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Machine, Publish, Send
from ridotto.core.rng import SEED_BYTES, Rng
from ridotto.core.vector import Layout
from ridotto.core.wire import Message, sentence
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import (
    ConsentError,
    DataError,
    LocalProtocolError,
    MissingExtraError,
    PeerProtocolError,
    PlanError,
    RidottoError,
    RoundFailedError,
)
from ridotto.privacy.noise.words import Words
from ridotto.rounds.announced import check_announced, check_tail
from ridotto.rounds.compression import leaves_zeros
from ridotto.rounds.dice import Dice, SeededDice
from ridotto.rounds.messages import (
    ANNOUNCE_CONTEXT,
    Announce,
    Applied,
    Apply,
    Closed,
    Decline,
    Discard,
    Merge,
    NotApplied,
    NotTrained,
    Train,
    Trained,
)
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.policy import Policy
from ridotto.rounds.record import RoundRecord, SessionRecord, session_record
from ridotto.rounds.seats import Roles, role_of, roles_of, to_devices
from ridotto.rounds.sessions import Attempt, make_sessions
from ridotto.rounds.spending import Spending
from ridotto.rounds.totals import TOTAL
from ridotto.secagg.committee_roles.drawn import drawn_roster
from ridotto.secagg.committee_roles.tasks import Encapsulated
from ridotto.secagg.protocols import SumCoordinator, sum_protocol
from ridotto.secagg.session import CommitteeSession, Member, Session, SessionResult, Timeouts, session_id
from ridotto.secagg.tasks import Opened

__all__ = ["Attempt", "CoordinatorRound", "ParticipantRound", "make_sessions"]


class CoordinatorRound:
    """Run one attempt at a round. Finishes with a `RoundRecord`, and an error if no model came out."""

    def __init__(self, attempt: Attempt, identity: IdentityKey) -> None:
        self._attempt = attempt
        self._identity = identity
        self._sessions = {session_id(session): session for session in make_sessions(attempt)}
        timeouts = Timeouts(attempt.plan.train_s, attempt.plan.phase_s)
        self._protocol = sum_protocol(attempt.plan.protocol_name, leaves_zeros(attempt.plan.compress))
        self._sums: dict[bytes, SumCoordinator] = {
            sid: self._protocol.coordinator(session, timeouts) for sid, session in self._sessions.items()
        }
        self._sid_of = {member.name: sid for sid, session in self._sessions.items() for member in session.members}
        self._serving = {sid: _helpers_in(session) for sid, session in self._sessions.items()}
        self._closed: dict[bytes, SessionRecord] = {}
        self._by_rule = attempt.plan.robust is not None
        self._started = 0.0

    @property
    def sessions(self) -> Mapping[bytes, Session]:
        """Return the attempt's sessions by their sid."""
        return self._sessions

    def start(self, now: float) -> list[Effect]:
        """Announce every session to its members and begin to wait."""
        self._started = now
        effects: list[Effect] = []
        for sid, session in self._sessions.items():
            announce = Announce(self._attempt.plan, session, self._identity.sign(ANNOUNCE_CONTEXT, sid))
            effects += [Send(name, announce) for name in self._told(sid)]
            effects += self._of_session(sid, self._sums[sid].start(now), now)
        return effects

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take a participant's or helper's message, or the result of an own task from SELF.

        Raises PeerProtocolError if the sender is not in the cohort or its session refuses the message.
        """
        if sender == SELF:
            return self._resume(message, now)
        sid = self._session_of(sender, message)
        if isinstance(message, Decline):
            if message.sid != sid:
                raise PeerProtocolError(sender, "its Decline belongs to another session")
            return self._leave(sid, sender, f"declined: {message.reason}", now)
        role = role_of(self._protocol, self._sessions[sid], sender, message)
        try:
            return self._of_session(sid, self._sums[sid].receive(role, message, now), now)
        except PeerProtocolError as error:
            raise PeerProtocolError(sender, error.why) from error

    def expire(self, now: float) -> list[Effect]:
        """Let every open session notice the time."""
        effects: list[Effect] = []
        for sid, machine in self._sums.items():
            if sid not in self._closed:
                effects += self._of_session(sid, machine.expire(now), now)
        return effects

    def _session_of(self, sender: str, message: Message) -> bytes:
        """Return the session that a message is for: participants have one, helpers one for each of their seats."""
        sid = self._sid_of.get(sender)
        if sid is not None:
            return sid
        if not any(sender in names for names in self._serving.values()):
            raise PeerProtocolError(sender, "is not in this round's cohort")
        named: bytes = getattr(message, "sid", b"")
        if sender not in self._serving.get(named, ()):
            raise PeerProtocolError(sender, f"its {type(message).__name__} is for a session in which it has no seat")
        return named

    def _told(self, sid: bytes) -> list[str]:
        """Return who hears of a session: its participants, and the helpers that were drawn to serve it."""
        return [*(member.name for member in self._sessions[sid].members), *self._serving[sid]]

    def _leave(self, sid: bytes, device: str, why: str, now: float) -> list[Effect]:
        """Stop waiting for a device in all its roles."""
        effects: list[Effect] = []
        for role in roles_of(self._sessions[sid], device):
            if sid not in self._closed:
                effects += self._of_session(sid, self._sums[sid].leave(role, why, now), now)
        return effects

    def _resume(self, message: Message, now: float) -> list[Effect]:
        match message:
            case Opened(sid=sid):
                return self._of_session(sid, self._sums[sid].receive(SELF, message, now), now)
            case Applied():
                return self._close(self._record(now, message))
            case NotApplied(reason=reason):
                return self._close(self._record(now, None, reason))
            case _:
                raise LocalProtocolError(f"{type(message).__name__} is not the result of a task of this machine")

    def _of_session(self, sid: bytes, effects: list[Effect], now: float) -> list[Effect]:
        """Pass a session's effects on, all but its end, which is the round's business."""
        passed: list[Effect] = []
        for effect in to_devices(effects):
            if isinstance(effect, Finish):
                self._closed[sid] = self._session_record(sid, effect)
                passed += [*self._put_away(sid), *self._go_on(now)]
            else:
                passed.append(effect)
        return passed

    def _session_record(self, sid: bytes, finish: Finish) -> SessionRecord:
        session, result, error = self._sessions[sid], finish.result, finish.error
        if not isinstance(result, SessionResult):
            raise LocalProtocolError("a session ended without a result")
        blamed = error.blame if isinstance(error, RoundFailedError) else ()
        # A seat that fell silent is no liar's: whoever has it is not to be kept out of later rounds.
        members = {member.name for member in session.members}
        blamed = tuple(name for name in blamed if name in members)
        return session_record(result, session.shard, len(session.members), str(error or ""), blamed)

    def _put_away(self, sid: bytes) -> list[Effect]:
        """Have the sum of a session that has ended added to the total or forgotten; a robust rule needs it as it is."""
        record = self._closed[sid]
        if record.failure:
            return [Do(Discard(sid))]
        return [] if self._by_rule else [Do(Merge(sid, len(record.included)))]

    def _go_on(self, now: float) -> list[Effect]:
        """When the last session has ended: apply what was opened, or fail."""
        if len(self._closed) < len(self._sessions):
            return []
        # In the order of the sessions, whichever closed first: a rule's noise is dealt to sums in this order.
        opened = tuple(sid for sid in self._sessions if not self._closed[sid].failure)
        if opened:
            sids = opened if self._by_rule else (TOTAL,)
            return [Do(Apply(self._attempt.number, sids, self._attempt.nonce))]
        return self._close(self._record(now, None))

    def _record(self, now: float, applied: Applied | None, failure: str = "") -> RoundRecord:
        excluded = applied.excluded if applied else {}
        closed = [
            msgspec.structs.replace(record, excluded=excluded.get(sid, "")) for sid, record in self._closed.items()
        ]
        sessions = tuple(sorted(closed, key=lambda record: record.shard))
        attempt, plan = self._attempt, self._attempt.plan
        return RoundRecord(
            round=attempt.number,
            attempt=attempt.attempt,
            plan=plan.fingerprint().hex(),
            protocol=plan.protocol_name,
            model_before=attempt.model.hex(),
            model=(applied.model if applied else attempt.model).hex(),
            started=self._started,
            finished=now,
            sessions=sessions,
            participants=applied.participants if applied else 0,
            examples=applied.examples if applied else 0,
            saturated=applied.saturated if applied else 0,
            metrics=applied.metrics if applied else {},
            clip=plan.clip_norm,
            clipped=applied.clipped if applied else None,
            failure="" if applied else failure or "; ".join(session.failure for session in sessions),
        )

    def _close(self, record: RoundRecord) -> list[Effect]:
        model = bytes.fromhex(record.model)
        effects: list[Effect] = []
        for sid in self._sessions:
            closed = Closed(sid, model, sentence(record.failure))
            effects += [Send(name, closed) for name in self._told(sid)]
        error = RoundFailedError("ROUND_FAILED", record.failure, record.blamed) if record.failure else None
        return [*effects, Publish(record), Finish(record, error)]


class ParticipantRound:
    """Take part in one attempt at a round. Finishes when the coordinator closes it.

    me: own name. policy: the data holder's floor. coordinator: the identity key (32 bytes) that must have signed.
    rng: secret; a machine that is built again from the same seed and fed the same messages repeats itself bit for
    bit. dice: round the update; words: round and hide it under differential privacy; both are drawn from `rng` unless a
    simulation brings its own. spending: what my rounds before this attempt have cost, for a policy that limits it.
    layout: of the model, which low-rank compression and per-layer clips look at. serving: secret, for a seat on a
    committee, as `seats.Roles` says; without, a seat that it is drawn for stays empty.
    """

    def __init__(
        self,
        me: str,
        identity: IdentityKey,
        policy: Policy,
        coordinator: bytes,
        rng: Rng,
        dice: Dice | None = None,
        words: Words | None = None,
        spending: Spending | None = None,
        layout: Layout | None = None,
        serving: Rng | None = None,
    ) -> None:
        self._words = words
        self._layout = layout
        self._spending = spending
        self._me = me
        self._identity = identity
        self._policy = policy
        self._coordinator = coordinator
        self._rng = rng
        self._dice: Dice = SeededDice(rng) if dice is None else dice
        self._serving = serving
        self._announce: Announce | None = None
        self._sid = b""
        self._roles: Roles | None = None

    def start(self, now: float) -> list[Effect]:
        """Wait for an announcement."""
        return []

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the coordinator's next message, or the result of training or of a task of the sum from SELF.

        Raises PeerProtocolError if the coordinator's message does not hold.
        """
        match message:
            case Trained() | NotTrained() if sender == SELF:
                return self._trained(message, now)
            case Encapsulated() if sender == SELF:
                if self._roles is None:
                    raise LocalProtocolError("secrets were encapsulated that nobody asked for")
                return self._roles.resume(message, now)
            case _ if sender != COORDINATOR:
                raise PeerProtocolError(sender, "only the coordinator speaks to a participant")
            case Announce():
                return self._consider(message, now)
            case Closed():
                return self._close(message)
            case _ if self._roles is None:
                raise PeerProtocolError(COORDINATOR, f"{type(message).__name__} came before there was an update")
            case _:
                return self._roles.receive(message, now)

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _consider(self, announce: Announce, now: float) -> list[Effect]:
        """Check what is announced; consent means to start training."""
        if self._announce is not None:
            raise PeerProtocolError(COORDINATOR, "announced a second session in one round")
        session = announce.session
        sid = session_id(session)
        check_announced(announce, sid, self._coordinator, self._layout)
        self._check_mine(announce)
        self._announce, self._sid = announce, sid
        try:
            self._policy.check(announce.plan, session, self._spending)
        except (ConsentError, MissingExtraError) as error:
            return [Send(COORDINATOR, Decline(sid, sentence(error))), Finish(error=error)]
        self._roles = Roles(sum_protocol(session.protocol), session, self._me, self._identity, self._serving)
        return [*self._roles.start(now), Do(Train(session.model, session.round))]

    def _check_mine(self, announce: Announce) -> None:
        if Member(self._me, self._identity.public) not in announce.session.members:
            raise PeerProtocolError(COORDINATOR, "the session's roster does not have me with my key")
        if self._spending is None:
            return
        try:
            self._spending.event(announce.plan)
        except PlanError as error:
            raise PeerProtocolError(COORDINATOR, f"nobody can say what the plan costs: {error}") from error

    def _trained(self, message: Trained | NotTrained, now: float) -> list[Effect]:
        if self._announce is None or self._roles is None or self._roles.has_sum:
            raise LocalProtocolError("an update came that nobody asked for")
        if isinstance(message, NotTrained):
            return self._give_up(message.reason)
        try:
            return self._roles.begin_sum(self._sum_machine(self._announce, message), now)
        except DataError as error:
            return self._give_up(str(error), error)

    def _sum_machine(self, announce: Announce, trained: Trained) -> Machine:
        session = announce.session
        pipeline = Pipeline(announce.plan, len(trained.update) if self._layout is None else self._layout)
        if pipeline.length != session.length:
            raise DataError(f"the session sums {session.length} elements, this model needs {pipeline.length}")
        check_tail(pipeline, session)
        words = None
        if pipeline.noise is not None:
            words = Words(self._rng.bytes(SEED_BYTES)) if self._words is None else self._words
        vector = pipeline.encode(
            trained.update, trained.examples, trained.metrics, self._dice, words=words, seed=session.nonce
        )
        half = sum_protocol(session.protocol, leaves_zeros(announce.plan.compress)).participant
        return half(session, self._me, self._identity, vector, self._rng)

    def _give_up(self, reason: str, error: RidottoError | None = None) -> list[Effect]:
        decline = Send(COORDINATOR, Decline(self._sid, sentence(reason)))
        return [decline, Finish(error=error or DataError(reason))]

    def _close(self, message: Closed) -> list[Effect]:
        if message.sid != self._sid:
            raise PeerProtocolError(COORDINATOR, "it closed another session")
        return [Finish(message)]


def _helpers_in(session: Session) -> tuple[str, ...]:
    """Return the helpers that have a seat in a session, by name."""
    if not isinstance(session, CommitteeSession) or not session.helpers:
        return ()
    return tuple(helper.name for helper in drawn_roster(session).members)
