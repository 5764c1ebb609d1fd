"""A computing party's machine: shares of models and inputs, sessions of one query each, and its peer.

A session goes through

    prepare   the client says which plan, the dealer sends material: both may come first; the offline work is done
    greet     both parties say the plan's digest; a difference ends the session, by name
    wait      the client is told that it is ready
    run       the client names an input; one message a round; the material is gone as it is used
    answer    this party's share of the output goes to the client, and the session is forgotten

Whatever goes wrong, the session is forgotten with all its material, and the client is told whose fault it was. A
partial result is never sent. Nothing is kept on disk: a party that restarts knows no session, so material can't be
used twice. What a party sees of a query: sizes, times, and uniform words.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from ridotto.core.machine import Effect, Send, Wake
from ridotto.core.wire import Message, sentence
from ridotto.errors import DataError, LocalProtocolError, PeerProtocolError, PlanError
from ridotto.infer.authenticated import TagMismatchError
from ridotto.infer.graph import Architecture
from ridotto.infer.kernels.plain import Words
from ridotto.infer.messages import (
    Answer,
    Begin,
    BeginSealed,
    Dealt,
    DealtModel,
    Failed,
    Forget,
    Hello,
    ModelSeed,
    Opening,
    Prepare,
    Ready,
    ShareInput,
    ShareModel,
    buffer,
    words_from,
)
from ridotto.infer.model import load, row_length, slots
from ridotto.infer.program import Plan, Program, compile_plan
from ridotto.infer.rounds import Conversation
from ridotto.infer.sessions import ModelState, Reader, SessionState, plan_of
from ridotto.infer.streams import Walk
from ridotto.infer.wires import ModelShares


@dataclass(frozen=True)
class Limits:
    """Bound what clients may leave lying here.

    models, inputs, sessions: how many at a time, of all clients together. wait_s: how long dealer, peer or client may
    keep a session waiting.
    """

    models: int = 64
    inputs: int = 1024
    sessions: int = 256
    wait_s: float = 120.0


class Party:
    """Compute with `peer` what `clients` ask for, with material of `dealer`.

    first: whether this is party 0. All names are those under which the driver has authenticated the senders.
    """

    def __init__(
        self, *, first: bool, peer: str, dealer: str, clients: Collection[str], limits: Limits | None = None
    ) -> None:
        if len({peer, dealer, *clients}) != 2 + len(clients):
            raise LocalProtocolError("peer, dealer and clients must have different names")
        self._peer, self._dealer = peer, dealer
        self._clients = frozenset(clients)
        self._reader = Reader(first, dealer)
        self._limits = limits or Limits()
        self._models: dict[bytes, ModelState] = {}
        self._sessions: dict[bytes, SessionState] = {}
        self._inputs: dict[bytes, tuple[str, Words]] = {}
        self._programs: dict[Plan, Program] = {}

    def start(self, now: float) -> list[Effect]:
        """Do nothing yet."""
        return []

    def expire(self, now: float) -> list[Effect]:
        """Give up models and sessions that waited too long, and say for whom they waited."""
        effects: list[Effect] = []
        for name, session in list(self._sessions.items()):
            if now >= session.until:
                blame = self._late(session)
                effects += self._fail(name, blame, f"nothing came for {self._limits.wait_s:g} s")
        for name, model in list(self._models.items()):
            if model.shares is None and now >= model.until:
                effects += self._fail(
                    name, self._dealer if model.seed is None else self._peer, "model not opened in time"
                )
        return effects

    def lose(self, name: str, why: str) -> list[Effect]:
        """Notice that a party is gone, or was refused: what waits for it comes to nothing."""
        effects: list[Effect] = []
        if name in (self._peer, self._dealer):
            for item in [*self._sessions, *(key for key, model in self._models.items() if model.shares is None)]:
                session = self._sessions.get(item)
                if name == self._dealer and session is not None and (session.ready or session.prepared is not None):
                    continue
                effects += self._fail(item, name, why)
            return effects
        self._sessions = {key: session for key, session in self._sessions.items() if session.client != name}
        self._inputs = {key: held for key, held in self._inputs.items() if held[0] != name}
        self._models = {key: model for key, model in self._models.items() if model.owner != name}
        return effects

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take one message. Raises PeerProtocolError, changing nothing, if it is refused."""
        if sender == self._peer:
            return self._from_peer(message, now)
        if sender == self._dealer:
            return self._from_dealer(message, now)
        if sender in self._clients:
            return self._from_client(sender, message, now)
        raise PeerProtocolError(sender, "is not known here")

    def _from_peer(self, message: Message, now: float) -> list[Effect]:
        match message:
            case Opening(name):
                return self._opening(message, now)
            case Hello(name):
                item = self._models.get(name) or self._session(name, self._peer, now)
                if item.hello is not None:
                    raise PeerProtocolError(self._peer, "says hello twice in a session")
                item.hello = message
                return self._advance(name)
        raise PeerProtocolError(self._peer, f"sends a {type(message).__name__}, which is not for its peer")

    def _from_dealer(self, message: Message, now: float) -> list[Effect]:
        match message:
            case ModelSeed(name, seed):
                model = self._model(name, self._dealer, now)
                if model.seed is not None or model.dealt is not None:
                    raise PeerProtocolError(self._dealer, "sends a second seed for a model")
                model.seed = seed
                return [*self._advance(name), Wake(model.until)]
            case DealtModel(name):
                model = self._model(name, self._dealer, now)
                if model.seed is not None or model.dealt is not None or model.shares is not None:
                    raise PeerProtocolError(self._dealer, "deals a model twice")
                model.dealt = message
                return [*self._advance(name), Wake(model.until)]
            case Dealt(name):
                session = self._session(name, self._dealer, now)
                if session.dealt is not None or session.prepared is not None or session.ready:
                    raise PeerProtocolError(self._dealer, "deals twice for a session")
                session.dealt = message
                return [*self._advance(name), Wake(session.until)]
        raise PeerProtocolError(self._dealer, f"sends a {type(message).__name__}, which is not for a party")

    def _from_client(self, sender: str, message: Message, now: float) -> list[Effect]:
        match message:
            case ShareModel():
                return self._share_model(sender, message, now)
            case ShareInput():
                return self._share_input(sender, message)
            case Prepare():
                return self._prepare(sender, message, now)
            case Begin():
                return self._begin(sender, message, now)
            case BeginSealed():
                return self._begin_sealed(sender, message, now)
            case Forget(item):
                return self._forget(sender, item)
        raise PeerProtocolError(sender, f"sends a {type(message).__name__}, which is not for a party")

    # What clients say.

    def _share_model(self, sender: str, message: ShareModel, now: float) -> list[Effect]:
        try:
            architecture = Architecture.decode(message.architecture)
        except DataError as error:
            raise PeerProtocolError(sender, f"malformed model: {error}") from error
        length = row_length(architecture)
        if message.sealed:
            row = words_from(message.values, length, sender, "sealed model")
        else:
            row = self._reader.share(sender, message.seed, message.values, (length,), message.model, "model")
        model = self._model(message.model, sender, now)
        if model.share is not None:
            raise PeerProtocolError(sender, "shares a model under the name of another")
        model.share, model.owner, model.architecture, model.row = message, sender, architecture, row
        return [*self._advance(message.model), Wake(model.until)]

    def _share_input(self, sender: str, message: ShareInput) -> list[Effect]:
        if message.tensor in self._inputs:
            raise PeerProtocolError(sender, "shares an input under the name of another")
        if len(self._inputs) >= self._limits.inputs:
            raise PeerProtocolError(sender, f"shares one input more than the {self._limits.inputs} that are kept here")
        words = self._reader.share(sender, message.seed, message.values, message.shape, message.tensor, "input")
        self._inputs[message.tensor] = sender, words
        return []

    def _prepare(self, sender: str, message: Prepare, now: float) -> list[Effect]:
        model = self._models.get(message.model)
        if model is None or model.shares is None or model.share is None or model.architecture is None:
            return [Send(sender, Failed(message.session, sender, "names a model that is not ready here"))]
        plan = plan_of(model.architecture, model, message)
        try:
            program = self._program(plan)
        except PlanError as error:
            return [Send(sender, Failed(message.session, sender, sentence(error)))]
        session = self._session(message.session, sender, now)
        if session.client:
            raise PeerProtocolError(sender, "prepares a session under the name of another")
        session.client, session.plan, session.program, session.model = sender, plan, program, message.model
        session.sealed = model.sealed
        first = None if model.sealed else plan.batch * math.prod(plan.architecture.input_shape)
        session.talk = Conversation(self._peer, message.session, plan.digest(), first)
        return [*self._advance(message.session), Wake(session.until)]

    def _program(self, plan: Plan) -> Program:
        if plan not in self._programs:
            if len(self._programs) >= self._limits.sessions:
                del self._programs[next(iter(self._programs))]
            self._programs[plan] = compile_plan(plan)
        return self._programs[plan]

    def _begin(self, sender: str, message: Begin, now: float) -> list[Effect]:
        session, held = self._sessions.get(message.session), self._inputs.get(message.tensor)
        if session is None or session.client != sender:
            return [Send(sender, Failed(message.session, sender, "begins a session that is not known here"))]
        expected = self._begun(sender, session, sealed=False)
        if held is None or held[0] != sender:
            return self._fail(message.session, sender, "begins with an input that is not known here")
        if held[1].shape != expected:
            return self._fail(message.session, sender, f"begins with an input of shape {held[1].shape}, not {expected}")
        return self._start(message.session, session, held[1], now)

    def _begin_sealed(self, sender: str, message: BeginSealed, now: float) -> list[Effect]:
        session = self._sessions.get(message.session)
        if session is None or session.client != sender:
            return [Send(sender, Failed(message.session, sender, "begins a session that is not known here"))]
        shape = self._begun(sender, session, sealed=True)
        words = words_from(message.values, math.prod(shape), sender, "sealed input").reshape(shape)
        return self._start(message.session, session, words, now)

    def _begun(self, sender: str, session: SessionState, *, sealed: bool) -> tuple[int, ...]:
        """Return the shape of the input of a session that may begin. Raises PeerProtocolError if it may not."""
        if not session.ready or session.prepared is None or session.program is None:
            raise PeerProtocolError(sender, "begins a session that is not ready, or twice")
        if sealed != (session.sealed is not None):
            raise PeerProtocolError(sender, "begins a session of a sealed model with a shared input, or the reverse")
        plan = session.program.plan
        shape = tuple(plan.architecture.input_shape)
        return (plan.batch, *((shape[1], shape[2], shape[0]) if len(shape) == 3 else shape))

    def _start(self, name: bytes, session: SessionState, value: Words, now: float) -> list[Effect]:
        if session.talk is None:
            raise PeerProtocolError(session.client, "begins a session that is not ready")
        session.until = now + self._limits.wait_s
        try:
            effects = session.talk.begin(self._reader.half(session, value, self._peer), now)
        except PeerProtocolError as refused:
            return self._fail(name, refused.peer, refused.why)
        return [*effects, *self._answer(name), Wake(session.until)]

    def _forget(self, sender: str, item: bytes) -> list[Effect]:
        if item in self._inputs and self._inputs[item][0] == sender:
            del self._inputs[item]
        if item in self._models and self._models[item].owner == sender:
            del self._models[item]
        if item in self._sessions and self._sessions[item].client == sender:
            del self._sessions[item]
        return []

    # Going on when something has come.

    def _opening(self, message: Opening, now: float) -> list[Effect]:
        item = self._models.get(message.session) or self._sessions.get(message.session)
        if item is None or item.talk is None:
            raise PeerProtocolError(self._peer, "opens in a session that is not known here")
        try:
            effects = item.talk.open(message, now)
        except TagMismatchError as caught:
            return self._caught(message.session, caught)
        if isinstance(item, SessionState):
            return [*effects, *self._answer(message.session)]
        return [*effects, *self._loaded(message.session, item)]

    def _caught(self, name: bytes, caught: TagMismatchError) -> list[Effect]:
        """End a session whose peer deviated, and its model: its keys may have become known to the peer."""
        session = self._sessions.get(name)
        effects = self._fail(name, caught.peer, caught.why)
        if session is not None:
            self._models.pop(session.model, None)
        return effects

    def _advance(self, name: bytes) -> list[Effect]:
        try:
            model = self._models.get(name)
            return self._advance_session(name) if model is None else self._advance_model(name, model)
        except PeerProtocolError as refused:
            # Found only now that both sides of a comparison are here: too late to refuse a message.
            return self._fail(name, refused.peer, refused.why)

    def _advance_model(self, name: bytes, model: ModelState) -> list[Effect]:
        effects: list[Effect] = []
        if model.share is None or model.architecture is None or model.row is None:
            return effects
        if model.share.sealed != (model.seed is None) and (model.seed is not None or model.dealt is not None):
            raise PeerProtocolError(model.owner, "shares a model in one way, and has it dealt in another")
        if model.dealt is not None:
            dealt, model.dealt = model.dealt, None
            model.sealed = self._reader.load(model, dealt)
            model.shares, model.row = model.sealed.shares, None
            return [Send(model.owner, Ready(name))]
        if model.talk is None and model.seed is not None:
            # Of the plans of a model, all that is known yet; batch and output are compared with each session.
            plan = Plan(model.architecture, model.share.fixed, 1, "logits")
            sizes = [math.prod(slot.weight) for slot in slots(model.architecture)]
            model.talk = Conversation(self._peer, name, plan.digest(), sum(sizes))
            effects.append(model.talk.hello(Walk().digest()))
        if model.talk is not None and model.hello is not None and model.seed is not None and not model.talk.greeted:
            model.talk.greet(model.hello)
            effects += model.talk.begin(load(model.architecture, name, model.row, model.seed), 0.0)
            model.row = None
        return effects

    def _loaded(self, name: bytes, model: ModelState) -> list[Effect]:
        if model.talk is None or not model.talk.done:
            return []
        model.shares, model.talk = model.talk.result, None
        return [Send(model.owner, Ready(name))]

    def _advance_session(self, name: bytes) -> list[Effect]:
        session, effects = self._sessions[name], list[Effect]()
        if session.program is None or session.talk is None or session.plan is None:
            return effects
        if session.dealt is not None:
            dealt, session.dealt = session.dealt, None
            self._reader.prepare(session, dealt, self._shares(session.model))
            effects.append(session.talk.hello(dealt.walk))
        if session.hello is not None and session.prepared is not None and not session.ready:
            session.talk.greet(session.hello)
            session.ready = True
            effects.append(Send(session.client, Ready(name)))
        return effects

    def _shares(self, name: bytes) -> ModelShares:
        model = self._models.get(name)
        if model is None or model.shares is None:
            raise PeerProtocolError(model.owner if model else self._peer, "the model was forgotten meanwhile")
        return model.shares

    def _answer(self, name: bytes) -> list[Effect]:
        session = self._sessions[name]
        if session.talk is None or not session.talk.done:
            return []
        del self._sessions[name]
        talk = session.talk
        return [
            Send(session.client, Answer(name, talk.rounds, talk.sent_bytes, buffer(talk.result), talk.round_trip_s))
        ]

    # What is known, and what is not any more.

    def _model(self, name: bytes, sender: str, now: float) -> ModelState:
        if name not in self._models:
            if len(self._models) >= self._limits.models:
                raise PeerProtocolError(sender, f"asks for one model more than the {self._limits.models} kept here")
            self._models[name] = ModelState(now + self._limits.wait_s)
            stray = self._sessions.get(name)
            if stray is not None and not stray.client:
                # The peer was quicker than client and dealer: its greeting came before this was known to be a model.
                self._models[name].hello = self._sessions.pop(name).hello
        return self._models[name]

    def _session(self, name: bytes, sender: str, now: float) -> SessionState:
        if name not in self._sessions:
            if len(self._sessions) >= self._limits.sessions:
                raise PeerProtocolError(sender, f"asks for one session more than the {self._limits.sessions} kept here")
            self._sessions[name] = SessionState(now + self._limits.wait_s)
        return self._sessions[name]

    def _late(self, session: SessionState) -> str:
        """Say for whom a session waits."""
        if session.ready:
            return self._peer if session.prepared is None else session.client
        return self._dealer if session.prepared is None else self._peer

    def _fail(self, name: bytes, blame: str, why: str) -> list[Effect]:
        item = self._sessions.pop(name, None) or self._models.pop(name, None)
        client = item.client if isinstance(item, SessionState) else item.owner if item is not None else ""
        return [Send(client, Failed(name, blame, sentence(why)))] if client else []
