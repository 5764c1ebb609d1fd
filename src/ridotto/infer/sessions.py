"""What a computing party keeps of a model and of a query, from the first message about it to the last.

A model is shared or sealed, and its queries are semi-honest or authenticated with it; what differs is here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ridotto.errors import PeerProtocolError
from ridotto.infer import authenticated
from ridotto.infer.authenticated import SealedModel, SealedSession
from ridotto.infer.fixed import Fixed, expand
from ridotto.infer.graph import WIRE_LIMIT, Architecture
from ridotto.infer.kernels.plain import Words
from ridotto.infer.macs import TagMaterial
from ridotto.infer.messages import Dealt, DealtModel, Hello, Prepare, ShareModel, words_from
from ridotto.infer.program import Plan, Program, Security
from ridotto.infer.rounds import Conversation
from ridotto.infer.streams import WORD_BYTES, Material
from ridotto.infer.wires import ModelShares, Prepared, Rounds


@dataclass(repr=False)
class ModelState:
    """A model on its way to be loaded, or loaded: `shares` is not None then."""

    until: float
    share: ShareModel | None = None
    owner: str = ""
    architecture: Architecture | None = None
    row: Words | None = None
    seed: bytes | None = None
    dealt: DealtModel | None = None
    sealed: SealedModel | None = None
    talk: Conversation | None = None
    hello: Hello | None = None
    shares: ModelShares | None = None


@dataclass(repr=False)
class SessionState:
    """One query."""

    until: float
    client: str = ""
    plan: Plan | None = None
    program: Program | None = None
    model: bytes = b""
    dealt: Dealt | None = None
    talk: Conversation | None = None
    hello: Hello | None = None
    prepared: list[Prepared] | SealedSession | None = None
    sealed: SealedModel | None = None
    ready: bool = False


@dataclass(frozen=True)
class Reader:
    """Read what the dealer sends to this party. first: whether it is party 0. dealer: whom errors name."""

    first: bool
    dealer: str

    def share(
        self, sender: str, seed: bytes | None, values: memoryview, shape: tuple[int, ...], name: bytes, what: str
    ) -> Words:
        """Return this party's share of a model or an input, as its sender gave it: as a seed or as words."""
        if (seed is not None) != self.first:
            raise PeerProtocolError(sender, f"shares its {what} as the other party must get it")
        if math.prod(shape) > WIRE_LIMIT:
            raise PeerProtocolError(sender, f"shares its {what} of {math.prod(shape)} words, at most {WIRE_LIMIT}")
        if seed is None:
            return words_from(values, math.prod(shape), sender, f"share of the {what}").reshape(shape)
        if values.nbytes:
            raise PeerProtocolError(sender, f"shares its {what} both as a seed and as words")
        return expand(seed, name, what, shape)

    def load(self, model: ModelState, dealt: DealtModel) -> SealedModel:
        """Return a sealed model. Raises PeerProtocolError, naming the dealer, if what it dealt does not fit."""
        if model.row is None or model.architecture is None:
            raise PeerProtocolError(self.dealer, "deals for a model that is not there")
        material = TagMaterial(dealt.seed, dealt.model, self._words(dealt), first=self.first, dealer=self.dealer)
        loaded = authenticated.load_sealed(material, model.architecture, model.row)
        self._compare(material, dealt.walk)
        return loaded

    def prepare(self, session: SessionState, dealt: Dealt, shares: ModelShares) -> None:
        """Do the offline work of a session.

        Raises PeerProtocolError, naming the dealer, if what it dealt does not fit.
        """
        if session.program is None:
            raise PeerProtocolError(self.dealer, "deals for a session that is not there")
        if dealt.plan != session.program.plan.digest():
            raise PeerProtocolError(self.dealer, "dealt for another plan")
        words, kind = self._words(dealt), Material if session.sealed is None else TagMaterial
        material = kind(dealt.seed, dealt.session, words, first=self.first, dealer=self.dealer)
        prepared: list[Prepared] | SealedSession
        if session.sealed is not None and isinstance(material, TagMaterial):
            prepared = authenticated.prepare(material, session.program, session.sealed)
        else:
            prepared = session.program.prepare(material, shares)
        self._compare(material, dealt.walk)
        session.prepared = prepared

    def half(self, session: SessionState, value: Words, peer: str) -> Rounds:
        """Return this party's half of a session, whose material is gone from it then. value: its share, or sealed."""
        # The session has no material any more: no second run, no error and no crash can meet it again.
        prepared, session.prepared = session.prepared, None
        if session.program is None or prepared is None:
            raise PeerProtocolError(session.client, "begins a session that is not ready")
        if session.sealed is not None and isinstance(prepared, SealedSession):
            return authenticated.run(session.program, session.sealed, prepared, value, peer)
        if isinstance(prepared, SealedSession):
            raise PeerProtocolError(session.client, "begins a session of a model that is not sealed")
        return session.program.run(self.first, prepared, value)

    def _words(self, dealt: Dealt | DealtModel) -> Words:
        return words_from(dealt.values, dealt.values.nbytes // WORD_BYTES, self.dealer, "material")

    def _compare(self, material: Material, walk: bytes) -> None:
        if material.walk.digest() != walk:
            raise PeerProtocolError(self.dealer, "dealt material in another order, or of other sizes")


def plan_of(architecture: Architecture, model: ModelState, message: Prepare) -> Plan:
    """Return the plan that a client asks for. model: shared, of this architecture."""
    fixed = Fixed() if model.share is None else model.share.fixed
    security: Security = "semi-honest" if model.sealed is None else "malicious"
    return Plan(architecture, fixed, message.batch, message.output, message.comparison, security)
