"""What a computing party keeps of a model and of a query, from the first message about it to the last."""

from __future__ import annotations

from dataclasses import dataclass

from ridotto.infer.graph import Architecture
from ridotto.infer.kernels.plain import Words
from ridotto.infer.messages import Dealt, Hello, ShareModel
from ridotto.infer.program import Plan, Program
from ridotto.infer.rounds import Conversation
from ridotto.infer.wires import ModelShares, Prepared


@dataclass(repr=False)
class ModelState:
    """A model on its way to be loaded, or loaded: `shares` is not None then."""

    until: float
    share: ShareModel | None = None
    owner: str = ""
    architecture: Architecture | None = None
    row: Words | None = None
    seed: bytes | None = None
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
    prepared: list[Prepared] | None = None
    ready: bool = False
