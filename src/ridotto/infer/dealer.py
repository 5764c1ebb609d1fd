"""The dealer's machine: masks for models, material for sessions. It sees no data, no weights and no query.

It keeps the masks of the weights of each model, and nothing of a session: what was dealt is forgotten as it is sent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ridotto.core.machine import Effect, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message, sentence
from ridotto.errors import DataError, LocalProtocolError, PeerProtocolError, PlanError
from ridotto.infer.authenticated import deal as deal_sealed
from ridotto.infer.authenticated import deal_model
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import WIRE_LIMIT, Architecture
from ridotto.infer.macs import Keys, TagDealing
from ridotto.infer.messages import Dealt, DealtModel, Failed, Forget, ModelSeed, NewModel, Prepare, buffer
from ridotto.infer.model import draw_masks, row_length
from ridotto.infer.program import SEALED_LIMIT, Plan, Program, Security, compile_plan
from ridotto.infer.streams import SEED_BYTES, Dealing
from ridotto.infer.wires import Masks

MODEL_LIMIT = 64
"""Most models at a time, unless somebody asks for another number."""

PROGRAM_LIMIT = 256
"""Compiled programs that are kept, the oldest forgotten first: compiling one takes about a millisecond."""


@dataclass(frozen=True, repr=False)
class _Model:
    owner: str
    architecture: Architecture
    fixed: Fixed
    masks: Masks
    keys: Keys | None = None


class Dealer:
    """Deal to `parties` (their two names) what `clients` ask for. Everybody else is refused by name.

    rng: draws all seeds. model_limit: how many models at a time.
    """

    def __init__(
        self, parties: tuple[str, str], clients: Collection[str], rng: Rng, *, model_limit: int = MODEL_LIMIT
    ) -> None:
        if len({*parties, *clients}) != 2 + len(clients):
            raise LocalProtocolError("parties and clients must have different names")
        self._parties = parties
        self._clients = frozenset(clients)
        self._rng = rng
        self._limit = model_limit
        self._models: dict[bytes, _Model] = {}
        self._programs: dict[Plan, Program] = {}

    def start(self, now: float) -> list[Effect]:
        """Do nothing yet."""
        return []

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: a dealer waits for nobody."""
        return []

    def lose(self, name: str, why: str) -> list[Effect]:
        """Notice that somebody is gone: a client's models go with it."""
        for key in [key for key, model in self._models.items() if model.owner == name]:
            del self._models[key]
        return []

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take a client's wish. Raises PeerProtocolError, changing nothing, if it is refused."""
        if sender not in self._clients:
            raise PeerProtocolError(sender, "is no client of this dealer")
        match message:
            case NewModel():
                return self._new_model(sender, message)
            case Prepare():
                return self._prepare(sender, message)
            case Forget(item):
                if item in self._models and self._models[item].owner == sender:
                    del self._models[item]
                return []
        raise PeerProtocolError(sender, f"sends a {type(message).__name__}, which is not for a dealer")

    def _new_model(self, sender: str, message: NewModel) -> list[Effect]:
        if message.model in self._models:
            raise PeerProtocolError(sender, "shares a model under the name of another")
        if len(self._models) >= self._limit:
            raise PeerProtocolError(sender, f"shares one model more than the {self._limit} that this dealer keeps")
        try:
            architecture = Architecture.decode(message.architecture)
        except DataError as error:
            raise PeerProtocolError(sender, f"malformed model: {error}") from error
        limit = WIRE_LIMIT if message.seal is None else SEALED_LIMIT
        if (length := row_length(architecture)) > limit:
            raise PeerProtocolError(sender, f"shares a model of {length} words, at most {limit}")
        if message.seal is not None:
            return self._new_sealed(sender, message, architecture, message.seal)
        seeds = self._rng.bytes(SEED_BYTES), self._rng.bytes(SEED_BYTES)
        masks = draw_masks(seeds, message.model, architecture)
        self._models[message.model] = _Model(sender, architecture, message.fixed, masks)
        return [Send(party, ModelSeed(message.model, seed)) for party, seed in zip(self._parties, seeds, strict=True)]

    def _new_sealed(self, sender: str, message: NewModel, architecture: Architecture, seal: bytes) -> list[Effect]:
        dealing = TagDealing(self._rng, message.model, None, seal)
        keys, masks = deal_model(dealing, architecture)
        self._models[message.model] = _Model(sender, architecture, message.fixed, masks, keys)
        walk = dealing.walk.digest()
        return [
            Send(party, DealtModel(message.model, walk, seed, buffer(words)))
            for party, seed, words in zip(self._parties, dealing.seeds, dealing.messages(), strict=True)
        ]

    def _dealing(self, message: Prepare, model: _Model, program: Program) -> Dealing:
        """Write the material of one query. message.seal: there if the model is sealed."""
        if model.keys is None or message.seal is None:
            dealing = Dealing(self._rng, message.session)
            program.deal(dealing, model.masks)
            return dealing
        tagged = TagDealing(self._rng, message.session, model.keys, message.seal)
        deal_sealed(tagged, program, model.masks)
        return tagged

    def _prepare(self, sender: str, message: Prepare) -> list[Effect]:
        model = self._models.get(message.model)
        if model is None:
            return [Send(sender, Failed(message.session, sender, "names a model that the dealer does not know"))]
        if (model.keys is None) != (message.seal is None):
            return [Send(sender, Failed(message.session, sender, "asks in another security mode than the model's"))]
        security: Security = "semi-honest" if model.keys is None else "malicious"
        plan = Plan(model.architecture, model.fixed, message.batch, message.output, message.comparison, security)
        try:
            program = self._program(plan)
        except PlanError as error:
            return [Send(sender, Failed(message.session, sender, sentence(error)))]
        dealing = self._dealing(message, model, program)
        digests = plan.digest(), dealing.walk.digest()
        return [
            Send(party, Dealt(message.session, *digests, seed, buffer(words)))
            for party, seed, words in zip(self._parties, dealing.seeds, dealing.messages(), strict=True)
        ]

    def _program(self, plan: Plan) -> Program:
        if plan not in self._programs:
            if len(self._programs) >= PROGRAM_LIMIT:
                del self._programs[next(iter(self._programs))]
            self._programs[plan] = compile_plan(plan)
        return self._programs[plan]
