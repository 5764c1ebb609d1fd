"""Serve on a federation's committees without training: what `ridotto join --committee` runs.

    poll the inbox -> hand frames to the machine -> carry out what it asks for
                                                       send      -> POST
                                                       add masks -> at once, here
                                                       finish    -> wait for the next round

A helper keeps its identity, the coordinator's key and the number of the last attempt that it served in, and nothing
else: the keys of its seats must not survive it. One that was killed serves again from the next attempt on; to serve a
second time in the same one could open a second set of a session.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Send
from ridotto.core.rng import SEED_BYTES, OsRng, Rng
from ridotto.core.wire import Codec
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import ConfigError, PeerProtocolError, RoundFailedError
from ridotto.participant.attempts import require_attempt, require_later
from ridotto.participant.client import AttemptOverError, Client, MessageRefusedError, normal_url
from ridotto.participant.enter import Params, identify
from ridotto.participant.events import Event, EventKind, OnEvent
from ridotto.participant.patience import Clock
from ridotto.participant.state import StateFile
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.messages import Announce, Closed, Decline, messages_of_all
from ridotto.rounds.noise import add_committee_noise
from ridotto.rounds.policy import Policy
from ridotto.rounds.service import FederationInfo, Inbox, RunState
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.tasks import SumMasks

SHORTEST_POLL_S = 1.0
"""An inbox that answers with nothing new sooner than this is not a long poll, and must not be asked in a tight loop."""

MISSES_LIMIT = 3
"""Attempts in a row in which nothing was served to the end: once is a hiccup, three times has a cause."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """Say how a helper's service went. rounds: that were closed while it served, failed ones included."""

    name: str
    rounds: tuple[int, ...]
    sent_bytes: int
    received_bytes: int


class Helper:
    """Serve on the committees of a federation as one of the helpers that its plan names.

    client: speaks to the coordinator. policy: what a session must be like. state: remembers attempts. rng: draws the
    keys of seats; secret, from the operating system by default. on_event: watches.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        identity: IdentityKey,
        policy: Policy,
        state: StateFile,
        *,
        rng: Rng | None = None,
        clock: Clock | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.name = name
        self.rounds: list[int] = []
        self._client = client
        self._identity = identity
        self._policy = policy
        self._state = state
        self._rng = rng or OsRng()
        self._clock = clock or Clock()
        self._on_event = on_event or (lambda event: None)
        self._codec = Codec(*messages_of_all())
        self._coordinator = b""
        self._attempt = self._seen = self._round = 0
        self._missed: set[int] = set()
        self._machine: HelperRound | None = None
        self._idle = False

    def start(self, info: FederationInfo) -> None:
        """Enrol. info: of the federation, whose coordinator's key was checked.

        Raises ConfigError if the plan has no helpers, or does not name this one with this key.
        """
        asked, key = info.plan.helpers, self._identity.public.hex()
        if asked is None:
            raise ConfigError(
                f'the plan of {info.name} asks for no helpers; its protocol is "{info.plan.protocol_name}"'
            )
        if asked.keys.get(self.name) != key:
            raise ConfigError(
                f"the plan of {info.name} does not name {self.name} with key {key[:16]} as a helper: its operator adds "
                f'"{self.name}" = "{key}" to [plan.protocol.helpers.keys]'
            )
        self._coordinator = bytes.fromhex(info.coordinator)
        self._client.enrol(self.name)

    def serve(self) -> Served:
        """Serve until all rounds are over.

        Raises ConsentError if the policy refuses a round, RoundFailedError if the federation failed, PeerProtocolError
        or RefusedError after three attempts in a row that went wrong.
        """
        while not self._is_over(self._poll()):
            continue
        traffic = self._client.traffic
        return Served(self.name, tuple(self.rounds), traffic.sent_bytes, traffic.received_bytes)

    def _poll(self) -> Inbox:
        if self._machine is None and not self._idle:
            self._idle = True
            self._show(EventKind.WAITING)
        began = self._clock.monotonic()
        inbox = self._client.inbox(self._attempt, self._seen)
        if inbox.attempt != self._attempt:
            require_later(inbox.attempt, self._attempt)
            self._leave("the coordinator went on to the next attempt")
            self._attempt, self._seen = inbox.attempt, 0
        if inbox.after != self._seen:
            raise PeerProtocolError(COORDINATOR, f"its inbox begins at frame {inbox.after}, not {self._seen} as asked")
        for frame in inbox.frames:
            self._seen += 1
            self._take(frame)
        if not inbox.frames and inbox.state in (RunState.WAITING, RunState.RUNNING):
            spent = self._clock.monotonic() - began
            if spent < SHORTEST_POLL_S:
                self._clock.sleep(SHORTEST_POLL_S - spent)
        return inbox

    def _take(self, frame: bytes) -> None:
        """Hand a frame to the machine; what is wrong with one session is no reason to leave the others."""
        try:
            message, _ = self._codec.decode(frame, COORDINATOR)
            if isinstance(message, Announce) and not self._begin(message):
                return
            if self._machine is not None:
                self._carry_out(self._machine.receive(COORDINATOR, message, self._clock.wall()))
        except AttemptOverError as error:
            self._leave(str(error))
        except (PeerProtocolError, MessageRefusedError) as error:
            _log.warning("round %d, attempt %d: %s", self._round, self._attempt, error)
            self._missed.add(self._attempt)
            if len(self._missed) >= MISSES_LIMIT:
                raise

    def _begin(self, announce: Announce) -> bool:
        """Begin to serve in an attempt; return whether that may be. Which one it is lasts before anything is said."""
        require_attempt(announce, self._attempt)
        if self._machine is None:
            if self._attempt <= self._state.attempt:
                _log.info("attempt %d goes on without us: we have served in it before", self._attempt)
                return False
            self._state.begin(self._attempt, self._rng.bytes(SEED_BYTES))
            self._state.end(0)
            self._machine = HelperRound(self.name, self._identity, self._policy, self._coordinator, self._rng)
            self._machine.start(self._clock.wall())
            self._idle = False
        self._round = announce.session.round
        return True

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(_, message, attachment):
                    header = self._codec.header(message)
                    size = len(header) + (0 if attachment is None else len(attachment))
                    reason = message.reason if isinstance(message, Decline) else ""
                    self._show(EventKind.SENDING, type(message).__name__, size, reason)
                    self._client.send(self._attempt, header, attachment)
                case Do(SumMasks() as task):
                    self._add_masks(task)
                case Finish(_, error) if error is not None:
                    raise error
                case Finish(Closed(reason=reason)):
                    self._machine = None
                    self._missed.clear()
                    self.rounds.append(self._round)
                    self._show(EventKind.CLOSED, reason=reason)

    def _add_masks(self, task: SumMasks) -> None:
        summed = sum_masks(task, add_committee_noise, os.cpu_count() or 1)
        if self._machine is not None:
            self._carry_out(self._machine.receive(SELF, summed, self._clock.wall()))

    def _leave(self, reason: str) -> None:
        if self._machine is not None:
            self._machine = None
            self._show(EventKind.LOST, reason=reason)

    def _is_over(self, inbox: Inbox) -> bool:
        if inbox.state not in (RunState.DONE, RunState.FAILED):
            return False
        self._leave("the federation ended")
        if inbox.state == RunState.FAILED:
            raise RoundFailedError("FEDERATION_FAILED", inbox.reason or "the coordinator gave no reason")
        self._show(EventKind.DONE, reason=inbox.reason)
        return True

    def _show(self, kind: EventKind, message: str = "", size_bytes: int = 0, reason: str = "") -> None:
        self._on_event(Event(kind, self._round, self._attempt, message, size_bytes, reason))


def serve_committee(params: Params, *, on_event: OnEvent | None = None) -> Served:
    """Serve on the committees of the federation at `params.url` until all rounds are over.

    Raises what `Helper` raises, and ConsentError if the coordinator's key is not the one of the first contact.
    """
    identity, name = identify(params)
    with (
        StateFile(params.directory, normal_url(params.url), name, identity.public) as state,
        Client(
            params.url, identity, ca=params.ca, certificate=params.certificate, patience_s=params.patience_s
        ) as client,
    ):
        params.pin(state)
        info = client.federation()
        state.pin(bytes.fromhex(info.coordinator))
        helper = Helper(client, name, identity, params.policy, state, on_event=on_event)
        helper.start(info)
        return helper.serve()
