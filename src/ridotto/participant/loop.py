"""The driver: run one `ParticipantRound` after another against a coordinator that is reached over HTTP.

    poll the inbox -> write frames to the state file -> hand them to the machine -> carry out what it asks for
                                                                                      send        -> POST
                                                                                      train       -> a `Task`
                                                                                      finish      -> erase the state

There is one way through it, for those who hand training over and for those who keep their own loop:

    while (task := participation.next_task()) is not None:
        ... train on task.vector ...
        participation.submit(update, examples, metrics)

Whatever a machine is told is on the disk before it is told, so a process may die between any two steps: the next one
builds the machine again from the same seed, tells it the same things, and sends the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ridotto.core.machine import COORDINATOR, SELF, Buffer, Do, Effect, Finish, Send
from ridotto.core.rng import SEED_BYTES, OsRng, Rng, SecretRng
from ridotto.core.tensors import HEADER_LIMIT
from ridotto.core.vector import Layout, Vector
from ridotto.core.wire import Codec, Message
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import (
    ConfigError,
    DataError,
    LocalProtocolError,
    PeerProtocolError,
    RefusedError,
    RidottoError,
    RoundFailedError,
)
from ridotto.participant.attempts import require_attempt, require_later
from ridotto.participant.client import AttemptOverError, Client, MessageRefusedError, Traffic
from ridotto.participant.count import require_accounting, spent_by
from ridotto.participant.events import Event, EventKind, Fault, OnEvent, RoundReport, Spent
from ridotto.participant.models import Models, require_final
from ridotto.participant.notes import Keeper, Notes
from ridotto.participant.patience import Clock
from ridotto.participant.shapes import read_same, require_same_size, require_update
from ridotto.participant.state import Result, StateFile
from ridotto.participant.task import Task, correction_of
from ridotto.rounds.messages import Announce, Closed, NotTrained, Train, Trained, messages_of_all
from ridotto.rounds.plan import Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.round import ParticipantRound
from ridotto.rounds.service import FederationInfo, Inbox, RunState
from ridotto.rounds.spending import Spending
from ridotto.secagg.committee_roles.tasks import Encapsulate

MISSES_LIMIT = 3
"""Attempts in a row that may go wrong before the participant gives up: once is a hiccup, three times has a cause."""

SHORTEST_POLL_S = 1.0
"""An inbox that answers with nothing new sooner than this is not a long poll, and must not be asked in a tight loop."""

FLOAT_BYTES = 4

_log = logging.getLogger(__name__)


class Participation:
    """Take part in a federation's rounds as one participant.

    client: speaks to the coordinator. name: the participant's. policy: the data holder's floor. state: survives kills.
    layout: of the model that is trained here. rng: draws the seeds of attempts; secret. on_event: watches.
    fault: for demonstrations. receipts: takes notes for the receipts of rounds, and checks them.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        identity: IdentityKey,
        policy: Policy,
        state: StateFile,
        layout: Layout,
        *,
        rng: Rng | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
        fault: Fault | None = None,
        receipts: Keeper | None = None,
    ) -> None:
        self.reports: list[RoundReport] = []
        self.name = name
        self._client = client
        self._identity = identity
        self._policy = policy
        self._state = state
        self._layout = layout
        largest = 2 * HEADER_LIMIT + FLOAT_BYTES * layout.length
        self._models = Models(client, state.path.with_suffix(".model"), largest)
        self._rng = rng or OsRng()
        self._clock = clock or Clock()
        self._on_event = on_event or (lambda event: None)
        self._fault = fault
        self._notes = Notes(name, receipts)
        self._codec = Codec(*messages_of_all())
        self._coordinator = b""
        self._rounds = 0
        self._attempt, self._seen = state.attempt, state.seen
        self._machine: ParticipantRound | None = None
        self._replaying = self._idle = False
        self._round = 0
        self._plan: Plan | None = None
        self._train: Train | None = None
        self._task: Task | None = None
        self._misses = 0
        self._counted = (0, 0)

    def start(self, token: str = "") -> None:
        """Meet the coordinator, enrol, and take up the attempt that was open when the process before this one died.

        Raises ConsentError if the coordinator's key is not the one of the first contact, RefusedError if it does not
        enrol this participant, DataError if the federation's model is larger or smaller than the one trained here,
        MissingExtraError if the policy limits epsilon and counting it takes dp-accounting.
        """
        info = self._federation()
        if self._state.seed is None:  # before a token is spent, and a round waited for
            require_same_size(info.parameters, self._layout)
        if info.plan.helpers is not None and self.name in info.plan.helpers.keys:
            raise ConfigError(f"the plan names {self.name} as a helper: serve with `ridotto join URL --committee`")
        self._rounds, self._plan = info.rounds, info.plan
        require_accounting(Spending(self._layout, self._state.spent), self._policy, info.plan)
        self._client.enrol(self.name, token)
        if self._state.seed is not None:
            # A seat on a committee is lost with the process that had it: one that was restored could release twice.
            self._build_machine(self._state.seed, None)
            self._tell(self._state.frames, replay=True)

    def next_task(self) -> Task | None:
        """Wait until there is a model to train on; return None when all rounds are over.

        Asked twice it gives the same task, until `submit` or `decline`.
        Raises ConsentError if the policy refuses a round, DataError if the model does not fit the one that is trained
        here (both after a Decline), RoundFailedError if the federation failed, PeerProtocolError or RefusedError after
        three attempts in a row that went wrong.
        """
        while self._task is None:
            if self._train is not None:
                self._prepare(self._train)
            elif self._is_over(self._poll()):
                return None
        return self._task

    def submit(self, update: Vector, examples: int, metrics: Mapping[str, float]) -> None:
        """Hand in what training gave; `next_task` sees it through the secure sum.

        update: trained - received, float32, shape (d,). metrics: means over the examples.
        Raises DataError, after a Decline, for NaN, no examples, or a metric that the plan asks for and is missing.
        """
        if self._machine is None or self._task is None or self._plan is None:
            raise LocalProtocolError("an update was handed in and no round asks for one")
        try:
            require_update(update, examples, self._layout)
        except DataError as error:
            self.decline(f"training failed: {type(error).__name__}")
            raise
        event = Spending(self._layout).event(self._plan)
        self._state.keep_result(Result(update, examples, metrics, event))
        self._train = self._task = None
        with self._attempt_guard():
            self._carry_out(self._machine.receive(SELF, Trained(update, examples, metrics), self._clock.wall()))

    def decline(self, reason: str, *, patience_s: float | None = None) -> None:
        """Leave the open attempt, if there is one that waits for training, and say so with a short reason.

        patience_s: how long to try to say so; whether the coordinator hears it does not matter to this side.
        """
        if self._machine is None or self._train is None:
            return
        effects = self._machine.receive(SELF, NotTrained(reason), self._clock.wall())
        try:
            for effect in effects:
                if isinstance(effect, Send):
                    header = self._codec.header(effect.message)
                    self._client.send(self._attempt, header, patience_s=patience_s)
        except RidottoError as error:
            _log.info("round %d: could not decline: %s", self._round, error)
        self._end(EventKind.LOST, f"declined: {reason}")

    @property
    def spent(self) -> Spent | None:
        """Return what all rounds so far have cost, see `spent_by`."""
        return spent_by(Spending(self._layout, self._state.spent), self._policy, self._plan)

    @property
    def traffic(self) -> Traffic:
        """Return the bytes that went to and fro since this process began."""
        return self._client.traffic

    def final_model(self) -> tuple[Vector, bytes]:
        """Return what came out of the last round, float32, shape (d,), and the digest of its file.

        Raises PeerProtocolError if the coordinator's key has not signed a record that says so: who stands between could
        otherwise put another model there, at the one moment at which no announcement names it.
        """
        info = self._federation()
        signed = self._client.record(info.round)
        require_final(signed, info, self._coordinator)
        sha256 = bytes.fromhex(info.model)
        return self._fetch(sha256), sha256

    def _federation(self) -> FederationInfo:
        info = self._client.federation()
        self._coordinator = bytes.fromhex(info.coordinator)
        self._state.pin(self._coordinator)
        return info

    def _poll(self) -> Inbox:
        if self._machine is None and not self._idle:
            self._idle = True
            self._show(EventKind.WAITING)
        began = self._clock.monotonic()
        inbox = self._client.inbox(self._attempt, self._seen)
        if inbox.attempt != self._attempt:
            require_later(inbox.attempt, self._attempt)
            if self._machine is not None:
                self._end(EventKind.LOST, "the coordinator went on to the next attempt")
            self._attempt, self._seen, self._round = inbox.attempt, 0, 0
        if inbox.after != self._seen:
            raise PeerProtocolError(COORDINATOR, f"its inbox begins at frame {inbox.after}, not {self._seen} as asked")
        if inbox.frames:
            self._receive(inbox.frames)
        elif inbox.state in (RunState.WAITING, RunState.RUNNING):
            spent = self._clock.monotonic() - began
            if spent < SHORTEST_POLL_S:
                self._clock.sleep(SHORTEST_POLL_S - spent)
        self._check_receipts(inbox)
        return inbox

    def _check_receipts(self, inbox: Inbox) -> None:
        over = inbox.attempt if inbox.state is RunState.RUNNING else inbox.attempt + 1
        try:
            for event in self._notes.check(self._client, self._coordinator, over):
                self._on_event(event)
        except RidottoError:
            self.decline("a receipt of an earlier round could not be checked", patience_s=0)
            raise

    def _receive(self, frames: tuple[bytes, ...]) -> None:
        """Write frames down, then act on them; what comes after the end of an attempt is counted only."""
        first = self._seen == 0
        self._seen += len(frames)
        if first and self._machine is None:
            seed = self._rng.bytes(SEED_BYTES)
            self._state.begin(self._attempt, seed)
            self._build_machine(seed, self._rng)
        if self._machine is not None:
            self._state.keep_frames(frames)
            self._tell(frames)

    def _build_machine(self, seed: bytes, serving: Rng | None) -> None:
        secret = SecretRng(seed).child("round")
        # What this attempt costs is not in it: told the same again after a kill, the machine must say the same.
        spending = Spending(self._layout, self._state.spent_before)
        self._machine = ParticipantRound(
            self.name,
            self._identity,
            self._policy,
            self._coordinator,
            secret,
            spending=spending,
            layout=self._layout,
            serving=serving,
        )
        self._machine.start(self._clock.wall())
        self._idle = False

    def _tell(self, frames: tuple[bytes, ...], *, replay: bool = False) -> None:
        """Tell the machine what came.

        In a replay only what answers the last frame is sent: the rest has arrived, or the coordinator would not have
        gone on to the last frame.
        """
        with self._attempt_guard():
            for place, frame in enumerate(frames, 1):
                if self._machine is None:
                    return
                self._replaying = replay and place < len(frames)
                message, _ = self._codec.decode(frame, COORDINATOR)
                self._notes.heard(message)
                if isinstance(message, Announce):
                    require_attempt(message, self._attempt)
                    self._round, self._plan = message.session.round, message.plan
                self._carry_out(self._machine.receive(COORDINATOR, message, self._clock.wall()))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(_, message, attachment):
                    self._notes.said(message)
                    if not self._replaying:
                        self._send(message, attachment)
                case Do(Train() as train):
                    self._begin_training(train)
                case Do(Encapsulate() as task) if self._machine is not None:
                    drawn = self._state.encapsulated(task)
                    self._carry_out(self._machine.receive(SELF, drawn, self._clock.wall()))
                case Finish(result, error):
                    self._finish(result, error)

    def _begin_training(self, train: Train) -> None:
        """Note that training is due, or repeat its result if it was written down before."""
        result = self._state.result
        if result is None or self._machine is None:
            self._train = train
            return
        trained = Trained(result.update, result.examples, result.metrics)
        self._carry_out(self._machine.receive(SELF, trained, self._clock.wall()))

    def _send(self, message: Message, attachment: Buffer | None) -> None:
        kind, header = type(message).__name__, self._codec.header(message)
        size = len(header) + (0 if attachment is None else len(attachment))
        if self._fault is not None and (self._fault.round, self._fault.before) == (self._round, kind):
            self._show(EventKind.PAUSED, message=kind)
            self._clock.sleep(self._fault.pause_s)
        self._show(EventKind.SENDING, message=kind, size_bytes=size)
        self._client.send(self._attempt, header, attachment)

    def _prepare(self, train: Train) -> None:
        """Fetch the model that a task is about; leave the attempt if it is not one that can be trained here."""
        try:
            with self._attempt_guard():
                if self._state.seed is None or self._plan is None:
                    raise LocalProtocolError("a task without an open attempt")
                correction = correction_of(self._plan)
                vector = self._fetch(train.model)
                rng = SecretRng(self._state.seed).child("train")
                self._task = Task(train.round, self._rounds, vector, rng, correction)
                self._show(EventKind.TRAINING)
        except DataError:
            self.decline("the announced model does not fit the one that is trained here")
            raise

    def _fetch(self, sha256: bytes) -> Vector:
        body = self._models.fetch(sha256, keep=self._plan is not None and self._plan.download_bits is not None)
        return read_same(body, self._layout)

    @contextmanager
    def _attempt_guard(self) -> Iterator[None]:
        """Leave the attempt, and not the federation, when either side refuses the other."""
        try:
            yield
        except AttemptOverError as error:
            self._end(EventKind.LOST, str(error))
        except (PeerProtocolError, MessageRefusedError) as error:
            if isinstance(error, PeerProtocolError) and error.peer != COORDINATOR:
                raise
            self._miss(error)
        finally:
            self._replaying = False

    def _miss(self, error: PeerProtocolError | RefusedError) -> None:
        self._misses += 1
        _log.warning("round %d, attempt %d goes on without this participant: %s", self._round, self._attempt, error)
        self._end(EventKind.LOST, str(error))
        if self._misses >= MISSES_LIMIT:
            raise error

    def _finish(self, result: object, error: RidottoError | None) -> None:
        if error is not None:
            self._end(EventKind.LOST, f"declined: {error}")
            raise error
        if isinstance(result, Closed):
            self._misses = 0
            self._end(EventKind.CLOSED, result.reason)

    def _end(self, outcome: EventKind, reason: str) -> None:
        """Forget the attempt and everything secret about it."""
        self._machine = self._train = self._task = None
        self._notes.end(self._attempt)
        self._state.end(self._seen)
        traffic = self._client.traffic
        sent, received = traffic.sent_bytes - self._counted[0], traffic.received_bytes - self._counted[1]
        self._counted = traffic.sent_bytes, traffic.received_bytes
        self.reports.append(RoundReport(self._round, self._attempt, outcome, reason, sent, received))
        self._show(outcome, reason=reason)

    def _is_over(self, inbox: Inbox) -> bool:
        """Tell whether there will be no more rounds. Raises RoundFailedError if that is because they failed."""
        if inbox.state not in (RunState.DONE, RunState.FAILED):
            return False
        if self._machine is not None:
            self._end(EventKind.LOST, "the federation ended")
        if inbox.state == RunState.FAILED:
            raise RoundFailedError("FEDERATION_FAILED", inbox.reason or "the coordinator gave no reason")
        self._show(EventKind.DONE, reason=inbox.reason)
        return True

    def _show(self, kind: EventKind, *, message: str = "", size_bytes: int = 0, reason: str = "") -> None:
        spent = self.spent if kind in (EventKind.CLOSED, EventKind.LOST, EventKind.DONE) else None
        self._on_event(Event(kind, self._round, self._attempt, message, size_bytes, reason, spent))
