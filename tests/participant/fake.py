"""A coordinator without a port: the real round machine and vault behind an httpx transport, with scripted peers.

One participant is under test. The others are real machines that live in here and answer at once, so a whole federation
runs in one thread. When the tested participant polls and nothing is left to happen, time passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import numpy as np

from ridotto.core.machine import COORDINATOR, SELF, Buffer, Do, Effect, Finish, Publish, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.vector import Layout
from ridotto.core.wire import PREFIX, Codec, Message, digest
from ridotto.crypto.identity import RequestAuthError, verify_request
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import PeerProtocolError
from ridotto.participant.patience import Clock
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.messages import Apply, Discard, Merge, Train, Trained, messages_of_all
from ridotto.rounds.plan import Pairwise, Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.record import RoundRecord, sign_record
from ridotto.rounds.round import Attempt, CoordinatorRound, ParticipantRound
from ridotto.rounds.service import Enrolment, FederationInfo, Inbox, Problem, RunState
from ridotto.rounds.vault import Vault
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate, Settle
from ridotto.secagg.session import Member
from ridotto.secagg.tasks import Fold, Open

URL = "http://coordinator.test"
ME = "me"
LAYOUT = Layout.of({"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)})
PLAN = Plan(cohort=4, minimum=3, protocol=Pairwise(corrupt=0.0), i_know=("small-cohort",))
POLICY = Policy(min_corrupt=0.0)

Hook = Callable[[httpx.Request], None]


def key(name: str) -> IdentityKey:
    return IdentityKey.generate(insecure_seeded_rng(sum(name.encode())))


def frame_header(frame: bytes) -> bytes:
    """Return what a request's signature covers of a frame: prefix and header."""
    _, length = PREFIX.unpack(frame[: PREFIX.size])
    return frame[: PREFIX.size + length]


@dataclass
class FakeClock:
    """Time that passes only when somebody sleeps, and is written down."""

    now: float = 1_700_000_000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class FakeCoordinator:
    """Run `rounds` rounds with three scripted peers, whose updates are `steps` in every entry and 10 examples each."""

    layout: Layout = LAYOUT
    plan: Plan = PLAN
    rounds: int = 2
    steps: tuple[float, ...] = (1.0, 2.0, 3.0)
    clock: FakeClock = field(default_factory=FakeClock)
    identity: IdentityKey = field(default_factory=lambda: key("coordinator"))
    token: str = ""
    stop_after: int = 0
    before: Hook = lambda request: None
    after: Hook = lambda request: None

    def __post_init__(self) -> None:
        vector = np.zeros(self.layout.length, np.float32)
        self.vault = Vault(self.plan, self.layout, vector)
        self.models = {self.vault.model_digest: self.vault.model_bytes}
        self.codec = Codec(*messages_of_all(), attachment_limit=1 << 24)
        self.state, self.reason = RunState.WAITING, ""
        self.number, self.attempt = 1, 0
        self.machine: CoordinatorRound | None = None
        self.frames: list[bytes] = []
        self.heard: list[tuple[int, Message]] = []
        self.records: list[RoundRecord] = []
        self.enrolled: dict[bytes, str] = {}
        self.record_key: IdentityKey | None = None
        self.silent_from: type[Message] | None = None
        self.tamper: Callable[[Message], Message] = lambda message: message

    def transport(self) -> httpx.MockTransport:
        def handle(request: httpx.Request) -> httpx.Response:
            self.before(request)
            response = self.answer(request)
            self.after(request)
            return response

        return httpx.MockTransport(handle)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, request.read()
        match request.method, path.split("/")[2], path.split("/")[3:]:
            case "GET", "federation", []:
                return httpx.Response(200, content=msgspec.json.encode(self._info()))
            case "POST", "participants", []:
                return self._enrol(request, body)
            case "GET", "inbox", []:
                return self._authenticated(request, b"") or self._inbox(request)
            case "POST", "messages", []:
                header = frame_header(body)
                return self._authenticated(request, header) or self._message(request, body)
            case "GET", "models", [name]:
                model = self.models.get(bytes.fromhex(name))
                return httpx.Response(200, content=model) if model else problem(404, "no such model")
            case "GET", "rounds", [number]:
                found = [record for record in self.records if record.round == int(number)]
                signed = sign_record(found[-1], self.record_key or self.identity)
                return httpx.Response(200, content=msgspec.json.encode(signed))
        return problem(404, "no such place")

    def kinds(self) -> list[tuple[int, str]]:
        """What was accepted from the tested participant, in order, repetitions included."""
        return [(attempt, type(message).__name__) for attempt, message in self.heard]

    def different(self) -> list[tuple[int, str]]:
        """Of which attempt and kind two different messages came."""
        seen: dict[tuple[int, str], Message] = {}
        return [
            (attempt, type(message).__name__)
            for attempt, message in self.heard
            if seen.setdefault((attempt, type(message).__name__), message) != message
        ]

    def _info(self) -> FederationInfo:
        return FederationInfo(
            name="test",
            coordinator=self.identity.public.hex(),
            plan=self.plan,
            protection=self.plan.protection(),
            state=self.state,
            reason=self.reason,
            round=self.number - (self.state is RunState.DONE),
            rounds=self.rounds,
            attempt=self.attempt,
            model=self.vault.model_digest.hex(),
            parameters=self.layout.length,
            participants=len(self.enrolled),
            present=len(self.enrolled),
        )

    def _enrol(self, request: httpx.Request, body: bytes) -> httpx.Response:
        enrolment = msgspec.json.decode(body, type=Enrolment)
        public = self._verify(request, body)
        if public is None or public.hex() != enrolment.key:
            return problem(401, "the signature is not over this request")
        if public in self.enrolled:
            return httpx.Response(200, content=b"{}")
        if enrolment.token != self.token:
            return problem(403, "the token is unknown or was used before")
        if enrolment.name in self.enrolled.values():
            return problem(409, f"the name {enrolment.name} is taken")
        self.enrolled[public] = enrolment.name
        return httpx.Response(201, content=b"{}")

    def _verify(self, request: httpx.Request, covered: bytes) -> bytes | None:
        header, target = request.headers["Authorization"], request.url.raw_path.decode()
        try:
            return verify_request(header, request.method, target, digest(covered), self.clock.now)
        except RequestAuthError:
            return None

    def _authenticated(self, request: httpx.Request, covered: bytes) -> httpx.Response | None:
        public = self._verify(request, covered)
        return None if public in self.enrolled else problem(401, "this key is not enrolled")

    def _inbox(self, request: httpx.Request) -> httpx.Response:
        asked, after = (int(request.url.params[name]) for name in ("attempt", "after"))
        if self.state in (RunState.WAITING, RunState.RUNNING):
            self._let_something_happen(asked, after)
        start = after if asked == self.attempt else 0
        inbox = Inbox(
            attempt=self.attempt,
            state=self.state,
            reason=self.reason,
            after=start,
            frames=tuple(self.frames[start:]),
        )
        return httpx.Response(200, content=msgspec.msgpack.encode(inbox))

    def _let_something_happen(self, asked: int, after: int) -> None:
        if asked != self.attempt or after < len(self.frames):
            return
        if self.machine is None:
            self.begin()
            return
        while self.machine is not None and after == len(self.frames):
            self.clock.now += 1000.0
            self._carry_out(COORDINATOR, self.machine.expire(self.clock.now), None)

    def begin(self) -> None:
        """Open the next attempt."""
        self.attempt += 1
        self.state = RunState.RUNNING
        self.frames = []
        names = [f"peer{i}" for i in range(len(self.steps))]
        members = [Member(name, public) for public, name in self.enrolled.items()]
        members += [Member(name, key(name).public) for name in names]
        about = Attempt(
            plan=self.plan,
            number=self.number,
            attempt=self.attempt,
            model=self.vault.model_digest,
            parameters=self.layout.length,
            nonce=digest(bytes([self.attempt])),
            members=tuple(members),
            helpers=tuple(Member(name, key(name).public) for name in self._helpers()),
        )
        rng = insecure_seeded_rng(self.attempt)
        self._peers = {
            name: ParticipantRound(name, key(name), Policy(min_corrupt=0.0), self.identity.public, rng.child(name))
            for name in names
        }
        for name in self._helpers():
            own = rng.child(name)
            self._peers[name] = HelperRound(name, key(name), Policy(min_corrupt=0.0), self.identity.public, own)
        self.machine = CoordinatorRound(about, self.identity)
        self._carry_out(COORDINATOR, self.machine.start(self.clock.now), None)

    def _helpers(self) -> tuple[str, ...]:
        return tuple(f"helper{i}" for i in range(self.plan.most_helpers))

    def _message(self, request: httpx.Request, body: bytes) -> httpx.Response:
        if int(request.url.params["attempt"]) != self.attempt or self.machine is None:
            return problem(410, "this attempt is over")
        try:
            message, attachment = self.codec.decode(body, ME)
            name = self.enrolled[self._verify(request, frame_header(body)) or b""]
            effects = self.machine.receive(name, message, self.clock.now)
        except PeerProtocolError as error:
            return problem(409, error.why)
        self.heard.append((self.attempt, message))
        self._carry_out(COORDINATOR, effects, attachment)
        return httpx.Response(204)

    def _carry_out(self, owner: str, effects: list[Effect], attachment: Buffer | None) -> None:
        for effect in effects:
            match effect:
                case Send(to, message, payload):
                    self._deliver(owner, to, message, payload)
                case Do(task):
                    self._perform(owner, task, attachment)
                case Publish(RoundRecord() as record):
                    self.records.append(record)
                case Finish(_, error) if owner == COORDINATOR:
                    self._close(failed=error is not None)

    def _deliver(self, owner: str, to: str, message: Message, payload: Buffer | None) -> None:
        if to == COORDINATOR:
            if self.silent_from is not None and type(message) is self.silent_from:
                return
            if self.machine is not None:
                self._carry_out(COORDINATOR, self.machine.receive(owner, message, self.clock.now), payload)
        elif to in self._peers:
            self._carry_out(to, self._peers[to].receive(COORDINATOR, message, self.clock.now), None)
        else:
            self.frames.append(self.codec.header(self.tamper(message)))

    def _perform(self, owner: str, task: Any, attachment: Buffer | None) -> None:
        match task:
            case Train():
                update = np.full(self.layout.length, self.steps[int(owner[4:])], np.float32)
                metrics = dict.fromkeys(self.plan.metrics, 0.5)
                self._carry_out(owner, self._peers[owner].receive(SELF, Trained(update, 10, metrics), 0.0), None)
            case Fold(sid):
                self.vault.fold(sid, bytes(attachment or b""), task.sender)
            case Merge() | Discard():
                self.vault.close(task)
            case Settle():
                self.vault.settle(task)
            case Keep():
                self.vault.keep(task, bytes(attachment or b""))
            case Encapsulate():
                self._carry_out(owner, self._peers[owner].receive(SELF, encapsulate_all(task), 0.0), None)
            case SumMasks():
                self._carry_out(owner, self._peers[owner].receive(SELF, sum_masks(task), 0.0), None)
            case Unmask():
                self._resume(self.vault.perform(task))
            case Open():
                self._resume(self.vault.open(task))
            case Apply():
                applied = self.vault.apply(task)
                self.models[self.vault.model_digest] = self.vault.model_bytes
                self._resume(applied)

    def _resume(self, message: Message) -> None:
        if self.machine is None:
            raise AssertionError("a task without a machine")
        self._carry_out(COORDINATOR, self.machine.receive(SELF, message, self.clock.now), None)

    def _close(self, *, failed: bool) -> None:
        self.machine = None
        if failed:
            return
        self.number += 1
        if self.number > (self.stop_after or self.rounds):
            self.state = RunState.DONE
            self.reason = "the privacy budget is spent" if self.stop_after else ""


def problem(status: int, detail: str) -> httpx.Response:
    document = Problem(type="about:blank#test", title="refused", status=status, detail=detail)
    return httpx.Response(status, content=msgspec.json.encode(document))
