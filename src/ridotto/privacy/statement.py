"""Say what was promised, in words that a user can check: never an epsilon without what it depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from ridotto.errors import PlanError
from ridotto.privacy.event import LARGEST, Budget, Relation, check_delta

DIGITS = 3
"""Decimals of an epsilon on a screen. What was spent is rounded up, what is left is rounded down."""

WORLDS = {
    Relation.ADD_OR_REMOVE: "whether or not any one {unit} is in the data",
    Relation.ZERO_OUT: "whether or not any one {unit} contributes anything",
    Relation.REPLACE_ONE: "whichever data any one {unit} has",
}

METHODS = {
    "exact": "the exact curve of the Gaussian mechanism",
    "basic": "adding up the epsilons of its parts",
    "pld": "privacy loss distributions (dp-accounting)",
    "rdp": "Rényi differential privacy",
    "none": "nothing: something in it is not protected",
}


class Unit(StrEnum):
    """Name what is protected as a whole."""

    PARTICIPANT = "participant"
    """All that a participant has, in every round it takes part in."""

    EXAMPLE = "example"
    """One example of one participant."""


class PrivacyStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold what a model's privacy comes to, and everything that it depends on.

    epsilon: spent so far; None means infinite, no protection. delta: at which. budget: epsilon that may be spent in
    all; None if nobody set one. rounds, planned_rounds: that have been accounted for, and that were planned. unit,
    relation: what is protected against being told apart. sampling: a sentence on how the units of a round are chosen
    and whether that is credited. mechanism: in words. clip: largest l2 norm of a contribution. noise_multiplier: over
    the clip; None where a mechanism has none. trust: a sentence on who must be honest for the noise to be there.
    method: as `account.Cost` has it. notes: of the accountant, for users.
    `str` gives the words, `as_dict` the same as data.
    Raises PlanError for numbers that can't be.
    """

    epsilon: float | None
    delta: float
    budget: float | None
    rounds: int
    planned_rounds: int | None
    unit: Unit
    relation: Relation
    sampling: str
    mechanism: str
    clip: float | None
    noise_multiplier: float | None
    trust: str
    method: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if self.epsilon is not None and math.isinf(self.epsilon) and self.epsilon > 0:
            # JSON has no infinity; a missing number is not mistaken for a small one.
            msgspec.structs.force_setattr(self, "epsilon", None)
        for name in ("epsilon", "budget", "clip", "noise_multiplier"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= LARGEST:
                raise PlanError(f"{name} is a finite number of at least 0, not {value}")
        if self.rounds < 0 or (self.planned_rounds is not None and self.planned_rounds < self.rounds):
            raise PlanError(f"{self.rounds} of {self.planned_rounds} rounds can't be")
        if self.method not in METHODS:
            raise PlanError(f"method is one of {', '.join(METHODS)}, not {self.method}")

    @property
    def left(self) -> float | None:
        """Return the epsilon that may still be spent; None without a budget, 0 if all of it is gone."""
        if self.budget is None:
            return None
        return 0.0 if self.epsilon is None else max(0.0, self.budget - self.epsilon)

    def within(self, budget: Budget) -> bool:
        """Say whether what was spent is within this budget, at its delta or a smaller one."""
        return self.epsilon is not None and self.epsilon <= budget.epsilon and self.delta <= budget.delta

    def as_dict(self) -> Mapping[str, object]:
        """Return everything as plain data, for records and JSON, with `left` and the sentence."""
        return {**msgspec.to_builtins(self), "left": self.left, "sentence": str(self)}

    def __str__(self) -> str:
        return " ".join((self._spent(), self._promise(), self._how(), self.sampling, self.trust, *self.notes))

    def _spent(self) -> str:
        done = f"After {self.rounds}{'' if self.planned_rounds is None else f' of {self.planned_rounds}'} rounds: "
        if self.epsilon is None:
            return f"{done}no differential privacy (epsilon is infinite)."
        of = "" if self.budget is None else f" of {_down(self.budget)}"
        left = "" if self.left is None else f", {_down(self.left)} left"
        return f"{done}epsilon {_up(self.epsilon)}{of} at delta {self.delta:g}{left}."

    def _promise(self) -> str:
        world = WORLDS[self.relation].format(unit=self.unit)
        if self.epsilon is None:
            return f"An observer may be able to tell {world}."
        return f"What was published is about as likely {world} ({self.relation})."

    def _how(self) -> str:
        clip = "" if self.clip is None else f", clip {self.clip:g}"
        noise = "" if self.noise_multiplier is None else f", noise multiplier {self.noise_multiplier:g}"
        return f"Mechanism: {self.mechanism}{clip}{noise}. Counted by {METHODS[self.method]}."


def _up(number: float) -> str:
    return _decimals(math.ceil(round(number * 10**DIGITS, 6)) / 10**DIGITS)


def _down(number: float) -> str:
    return _decimals(math.floor(round(number * 10**DIGITS, 6)) / 10**DIGITS)


def _decimals(number: float) -> str:
    return f"{number:.{DIGITS}f}".rstrip("0").removesuffix(".")
