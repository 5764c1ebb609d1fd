"""Conduct a federation's rounds one step at a time: machine, sums, commit. Everything here may take long and blocks.

Each step (`begin`, `take`, `expire`, `perform`) feeds the machine, changes the sums, writes what changed and commits it
with the log rows in one transaction. Only what was committed comes out, as an `Outcome`. If anything fails on the way,
what is in memory is ahead of what is stored and worth nothing: `load` builds it anew from the store, as a restart does.

The clock of an attempt stands still while the coordinator is down: it goes on from the last input in the log. So
nobody is late because of an outage that was not theirs.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ridotto.coordinator.attempt import Description, LiveAttempt, Step
from ridotto.coordinator.blobs import MODELS, RECEIPTS, STATES, SUMS, Blobs, model_name, state_name
from ridotto.coordinator.deltas import Deltas
from ridotto.coordinator.kept import StoredCiphers
from ridotto.coordinator.privacy import PRIVACY_KEY, Ledger, read_spent, settled, system_noise
from ridotto.coordinator.progress import Run, begun, failed, new_run, resumed, stopped, succeeded, without_blamed
from ridotto.coordinator.proofs import write_proofs
from ridotto.coordinator.receipts import Seal, all_receipt_names, write_receipt
from ridotto.coordinator.settings import FederationSettings
from ridotto.coordinator.states import read_published, read_state, write_state
from ridotto.coordinator.store import Change, LogRow, Store, StoredRecord
from ridotto.coordinator.sums import StoredSums
from ridotto.core.machine import Buffer
from ridotto.core.rng import Rng
from ridotto.core.vector import Layout, Vector
from ridotto.core.wire import Message, digest
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import LocalProtocolError, RidottoError, StorageError
from ridotto.privacy.statement import PrivacyStatement
from ridotto.rounds.ciphers import sum_dtype
from ridotto.rounds.messages import Applied
from ridotto.rounds.plan import Plan
from ridotto.rounds.receipt import SALT_BYTES, commit_sum
from ridotto.rounds.record import RoundRecord, SignedRecord, sign_record, with_privacy
from ridotto.rounds.round import Attempt
from ridotto.rounds.service import RunState
from ridotto.rounds.sessions import hashed
from ridotto.rounds.vault import Vault
from ridotto.secagg.committee.tasks import Keep
from ridotto.secagg.session import Member
from ridotto.secagg.tasks import Opened

NONCE_BYTES = 32
RUN_KEY = "run"
ATTEMPT_KEY = "attempt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Input:
    """Hold one message of a participant. attempt: the one it is for. frame: prefix and header."""

    sender: str
    attempt: int
    message: Message
    frame: bytes = field(repr=False)
    attachment: Buffer | None = field(default=None, repr=False)


@dataclass
class Outcome:
    """Hold what a step made true, to be shown to everybody now.

    refused: place in the batch -> why. sent: (name, frame), in order. published: for watchers. ended: whether the
    attempt is over.
    """

    refused: dict[int, RidottoError] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)
    ended: bool = False


class Conductor:
    """Take steps. Not to be called by two threads at once; `run` and `model_bytes` may be read by any.

    layout, model: what training starts from, if the store is empty. settings: the attribute has the plan with its noise
    worked out.
    Raises PlanError if the plan's budget has no room for a round, StorageError if what was spent can't be read.
    """

    def __init__(
        self,
        settings: FederationSettings,
        layout: Layout,
        model: Vector,
        identity: IdentityKey,
        store: Store,
        blobs: Blobs,
        rng: Rng,
    ) -> None:
        spent = read_spent(store.values(), 0)
        plan = settled(settings.plan, spent, settings.rounds, layout)
        self.settings = dataclasses.replace(settings, plan=plan)
        self._ledger = Ledger(plan, layout, settings.rounds, spent)
        self._layout = layout
        self._initial = model
        self._identity = identity
        self._store = store
        self._blobs = blobs
        self._rng = rng
        self.attempt: LiveAttempt | None = None
        self.deltas = Deltas(blobs)
        self._lag = 0.0

    @property
    def statement(self) -> PrivacyStatement | None:
        """Return what was spent so far; None without differential privacy."""
        return self._ledger.statement

    @property
    def plan(self) -> Plan:
        """Return the plan of the current or next attempt: the settings' one, with an adaptive clip where it is."""
        return self._vault.plan

    @property
    def model_bytes(self) -> bytes:
        """Return the newest model's file."""
        return self._vault.model_bytes

    def now(self, wall: float) -> float:
        """Return the time of the attempt's clock. wall: unix seconds."""
        return wall if self.attempt is None else max(self.attempt.now, wall - self._lag)

    def wake_at(self) -> float | None:
        """Return when the machine wants to be woken, in unix seconds."""
        wake = self.attempt.next_wake if self.attempt is not None else None
        return None if wake is None else wake + self._lag

    def load(self, wall: float) -> Outcome:
        """Build everything from the store, replaying the log of the last attempt; start the federation if it is new.

        The outcome holds every frame of that attempt again.
        Raises StorageError if something stored is damaged, DataError if it is of another model.
        """
        values, plan = self._store.values(), self.settings.plan
        run = msgspec.msgpack.decode(values[RUN_KEY], type=Run) if RUN_KEY in values else self._initialise()
        self.run = run
        spent = read_spent(self._store.values(), run.attempt)
        self._ledger = Ledger(plan, self._layout, self.settings.rounds, spent)
        self._sums = StoredSums(self._blobs, self._store.sums(), sum_dtype(plan))
        self._kept = StoredCiphers(self._blobs)
        model = read_published(self._blobs, self.run.model, self._layout)
        state = read_state(self._blobs.read(state_name(self.run.strategy), self.run.strategy))
        threads = os.cpu_count() or 1
        self._vault = Vault(
            plan, self._layout, model, state, self._sums, threads=threads, noise=system_noise, kept=self._kept
        )
        self._blobs.sweep(SUMS, self._store.sums().values())
        self._blobs.sweep(STATES, [state_name(self.run.strategy)])
        # A model that was never published has other noise on the same sum as the one that will be.
        self._blobs.sweep(MODELS, map(model_name, self._store.models()))
        self._blobs.sweep(RECEIPTS, all_receipt_names(self._store.receipts()))
        self.deltas.load(self._store.models(), self._vault.most_deltas)
        outcome = self._replay(values.get(ATTEMPT_KEY), wall)
        if self.attempt is None or self.attempt.record is not None:
            # Its end was committed, and then perhaps a kill came before its files were deleted.
            self._kept.clear()
            self._kept.settle()
        self.run = self._within_budget(resumed(run, self.settings.rounds, is_open=self.attempt is not None))
        return outcome

    def reload(self, wall: float) -> Outcome:
        """Build everything from the store again, while the attempt's clock goes on: nobody waited for an outage."""
        lag = self._lag
        outcome = self.load(wall)
        if self.attempt is not None:
            self._lag = lag
        return outcome

    def begin(self, members: Sequence[Member], helpers: Sequence[Member], wall: float) -> Outcome:
        """Start the next attempt with these members, and charge what it costs before anybody hears of it.

        helpers: who is there to serve, for plans that ask for helpers.
        """
        nonce = self._rng.bytes(NONCE_BYTES)
        about = Attempt(
            plan=self._vault.plan,
            number=self.run.round,
            attempt=self.run.attempt + 1,
            model=self.run.model,
            parameters=self._layout.length,
            nonce=nonce,
            members=hashed(members, nonce),
            shapes=tuple(field.shape for field in self._layout.fields),
            helpers=tuple(helpers),
        )
        description = Description(attempt=about, started=wall)
        run = begun(self.run, about.attempt)
        attempt = LiveAttempt(description, self._identity)
        step = attempt.begin()
        self._ledger.charge()
        self._sums.clear()
        self._kept.clear()
        self.attempt, self._lag = attempt, 0.0
        values = {ATTEMPT_KEY: msgspec.msgpack.encode(description), PRIVACY_KEY: self._ledger.value}
        return self._commit([step], run, values, clear_log=True)

    def take(self, batch: Sequence[Input], wall: float) -> Outcome:
        """Take a batch of messages: all that are not refused are in the sums and in the log when this returns."""
        attempt, now = self._running(), self.now(wall)
        steps: list[Step] = []
        refused: dict[int, RidottoError] = {}
        vectors: defaultdict[bytes, list[tuple[str, Buffer]]] = defaultdict(list)
        released: list[tuple[Keep, Buffer]] = []
        for place, item in enumerate(batch):
            try:
                step = attempt.receive(item.sender, item.message, item.frame, now)
            except RidottoError as error:
                if isinstance(error, LocalProtocolError):
                    raise
                refused[place] = error
                continue
            steps.append(step)
            if not (step.folds or step.keeps):
                continue
            if item.attachment is None:
                raise LocalProtocolError("a vector is to be added or kept that did not come with its message")
            for fold in step.folds:
                vectors[fold.sid].append((fold.sender, item.attachment))
            released += [(keep, item.attachment) for keep in step.keeps]
        # Session by session, because only one sum is in memory; a sum does not depend on the order.
        for sid, attachments in vectors.items():
            for sender, attachment in attachments:
                self._vault.fold(sid, attachment, sender)
        outcome = self._commit(steps, released=released)
        outcome.refused = refused
        return outcome

    def expire(self, wall: float) -> Outcome:
        """Let the machine notice the time. To be called once `wake_at` has come."""
        attempt = self._running()
        # Adding the lag and taking it off again may round to just before the time that the machine waits for.
        return self._commit([attempt.expire(max(self.now(wall), attempt.next_wake or 0.0))])

    def perform(self, wall: float) -> Outcome:
        """Carry out the oldest pending task and commit what it changed together with its answer."""
        attempt, now = self._running(), self.now(wall)
        answer, steps = self._vault.perform(attempt.pending[0]), []
        if isinstance(answer, Opened) and answer.zero:
            steps.append(attempt.seal(self._seal(answer.sid), now))
        if isinstance(answer, Applied):
            self._blobs.write(model_name(answer.model), self._vault.model_bytes)
            if self._vault.delta is not None:
                self.deltas.write(answer.model, self._vault.delta)
        return self._commit([*steps, attempt.answer(answer, now)])

    def _seal(self, sid: bytes) -> Seal:
        """Commit to a sum that was just opened, while it is in memory."""
        salt = self._rng.bytes(SALT_BYTES)
        return Seal(sid, salt, commit_sum(self._vault.opened(sid), self._vault.plan.bits, salt))

    def _running(self) -> LiveAttempt:
        if self.attempt is None:
            raise LocalProtocolError("a step of an attempt before one was begun")
        return self.attempt

    def _commit(
        self,
        steps: Sequence[Step],
        run: Run | None = None,
        values: dict[str, bytes] | None = None,
        *,
        released: Sequence[tuple[Keep, Buffer]] = (),
        clear_log: bool = False,
    ) -> Outcome:
        """Make the steps durable, then hand out what they say."""
        for settle in [settle for step in steps for settle in step.settled]:
            self._vault.settle(settle)
        # Settling forgets what was kept before it, so what a member released comes after.
        for keep, masks in released:
            self._vault.keep(keep, masks)
        for end in [end for step in steps for end in step.ended]:
            self._vault.close(end)
        outcome = Outcome()
        rows: list[LogRow] = []
        ended = Change()
        for step in steps:
            if step.row is not None:
                rows.append(step.row)
            outcome.sent += step.sent
            write_proofs(self._blobs, step.published)
            outcome.published += [item for item in step.published if not isinstance(item, RoundRecord)]
            if step.record is not None:
                signed = self._signed(step.record)
                run = self._after(step.record)
                ended = self._kept_of(signed, run)
                outcome.published.append(signed)
                outcome.ended = True
        if outcome.ended:
            self._sums.clear()
            self._kept.clear()
        stored = dict(values or {})
        if run is not None:
            stored[RUN_KEY] = msgspec.msgpack.encode(run)
        change = dataclasses.replace(
            ended, clear_log=clear_log, log=tuple(rows), sums=self._sums.changes(), values=stored
        )
        if change != Change():
            self._store.commit(change)
        self._sums.settle()
        self._kept.settle()
        for model, number in change.models.items():
            self.deltas.publish(model, number, self._vault.most_deltas)
        if run is not None and run.strategy != self.run.strategy:
            self._blobs.delete([state_name(self.run.strategy)])
        self.run = run or self.run
        return outcome

    def _signed(self, record: RoundRecord) -> SignedRecord:
        spent = self._ledger.statement
        return sign_record(record if spent is None else with_privacy(record, spent), self._identity)

    def _kept_of(self, signed: SignedRecord, run: Run) -> Change:
        """Write the receipt of an attempt that ended; return what is kept of the attempt. run: after it."""
        attempt, record = self._running(), signed.record
        receipt, openings = write_receipt(self._blobs, signed, attempt.collected, attempt.sessions, self._identity)
        return Change(
            models={} if record.failure else {run.model: record.round},
            records=(StoredRecord(record.attempt, record.round, msgspec.json.encode(signed)),),
            receipts=(receipt,),
            openings=openings,
        )

    def _after(self, record: RoundRecord) -> Run:
        """Return how far the federation is once this attempt has ended; stores what goes with a new model."""
        run = without_blamed(self.run, record)
        if record.failure:
            run = failed(run, record, self.settings.max_failures)
        else:
            run = succeeded(run, record, self._write_state(), self.settings.rounds)
        return self._within_budget(run)

    def _within_budget(self, run: Run) -> Run:
        """Stop before a round that would overspend."""
        if run.state is RunState.WAITING and self._ledger.why_stopped:
            return stopped(run, self._ledger.why_stopped)
        return run

    def _write_state(self) -> bytes:
        """Store the strategy's state beside the last one, which goes once the new name is committed."""
        data = write_state(self._vault.state)
        name = digest(data)
        self._blobs.write(state_name(name), data)
        return name

    def _initialise(self) -> Run:
        """Store the initial model and what the strategy begins with."""
        vault = Vault(self.settings.plan, self._layout, self._initial, noise=system_noise)
        state = write_state(vault.state)
        self._blobs.write(model_name(vault.model_digest), vault.model_bytes)
        self._blobs.write(state_name(digest(state)), state)
        run = new_run(vault.model_digest, digest(state))
        values = {RUN_KEY: msgspec.msgpack.encode(run), PRIVACY_KEY: self._ledger.value}
        self._store.commit(Change(values=values, models={run.model: 0}))
        return run

    def _replay(self, encoded: bytes | None, wall: float) -> Outcome:
        """Feed the log to a fresh machine; the sums contain already what was folded."""
        self.attempt, self._lag = None, 0.0
        outcome = Outcome()
        if encoded is None:
            return outcome
        rows = self._store.log()
        try:
            description = msgspec.msgpack.decode(encoded, type=Description)
            if not self._is_ours(description.attempt.plan):
                raise StorageError(f"attempt {description.attempt.attempt} was begun with another plan")
            attempt = LiveAttempt(description, self._identity)
            outcome.sent += attempt.begin().sent
            for row in rows:
                outcome.sent += attempt.replay(row).sent
            for sid in self._sums:
                self._sums[sid]  # Reading checks it: a damaged sum is found now and not by every message that follows.
            if attempt.record is None and attempt.merged != self._vault.merged:
                raise StorageError(f"the total has {self._vault.merged} contributions, its log {attempt.merged}")
        except (msgspec.MsgspecError, RidottoError) as error:
            # An unfinished attempt is worth less than a federation that goes on: it is tried again from its model.
            _log.warning("the last attempt can't be taken up again and is given up: %s", error)
            return Outcome()
        self.attempt, self._lag = attempt, max(0.0, wall - attempt.now)
        return outcome

    def _is_ours(self, plan: Plan) -> bool:
        """Say whether an attempt had this federation's plan; an adaptive clip has moved since, if it has ended."""
        ours = self.settings.plan
        return plan == (ours if plan.clip_norm is None else ours.clipped_at(plan.clip_norm))
