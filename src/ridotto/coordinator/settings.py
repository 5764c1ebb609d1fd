"""What an operator decides about a federation, apart from the plan of its rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ridotto.core.machine import COORDINATOR, SELF
from ridotto.core.wire import NAME_PATTERN
from ridotto.errors import ConfigError, PlanError
from ridotto.rounds.plan import Plan
from ridotto.rounds.protocol_settings import seal_of
from ridotto.secagg.committee_roles.seals import require_seal

KEY_HEX_DIGITS = 64

SERVED_ALGORITHMS = ("fedavg", "fedprox")
"""Those in which a participant needs the model only and gives an update only."""


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """Say what is trained, by which plan, for how many rounds, and who may take part.

    name: shown to participants. rounds: successful ones, after which the federation is done; a plan that only says an
    epsilon gets the noise for so many. max_failures: after so many failed attempts in a row it stops and waits for a
    person. presence_s: a participant is there if it asked for its inbox within this time. allowed: name -> identity key
    (hex) of participants that need no token; None means that everyone needs one. batch: messages in one transaction at
    most. upload_limit_bytes: uploads that are held in memory at once, in bytes; the others wait, so that memory does
    not grow with the cohort.
    Raises ConfigError with what was found and what was expected, PlanError for a plan that can't be served.
    """

    name: str
    plan: Plan
    rounds: int
    max_failures: int = 5
    presence_s: float = 10.0
    allowed: Mapping[str, str] | None = field(default=None)
    batch: int = 64
    upload_limit_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 200:
            raise ConfigError(f"the federation's name has 1 to 200 characters, not {len(self.name)}")
        for number in ("rounds", "max_failures", "batch", "upload_limit_bytes"):
            if getattr(self, number) < 1:
                raise ConfigError(f"{number} is at least 1, not {getattr(self, number)}")
        self._check_simulated()
        require_seal(seal_of(self.plan))
        if not self.presence_s > 0:
            raise ConfigError(f"presence_s is above 0, not {self.presence_s}")
        for name, key in (self.allowed or {}).items():
            check_participant(name, key)
        if self.plan.helpers is not None and not self.plan.served_by(len(self.helpers)):
            raise PlanError(
                f"the plan's committees are made of helpers, and it names {len(self.helpers)}, which is too few: put "
                "what `ridotto identity NAME` shows each of them into [plan.protocol.helpers.keys]"
            )

    @property
    def helpers(self) -> Mapping[str, str]:
        """Return name -> identity key (hex) of who serves on committees: they need no token, and never train."""
        return {} if self.plan.helpers is None else self.plan.helpers.keys

    def _check_simulated(self) -> None:
        """Refuse what only a simulation does."""
        plan = self.plan
        if plan.algorithm.name not in SERVED_ALGORITHMS:
            raise PlanError(
                f"{plan.algorithm.name} can only be simulated so far; a coordinator serves "
                + " and ".join(SERVED_ALGORITHMS)
            )
        if plan.feeds_back:
            raise PlanError("error feedback can only be simulated so far: participants keep nothing between rounds")
        if plan.robust is not None and plan.robust.build().rooted:
            raise PlanError(f"{plan.robust.build().name} can only be simulated so far: a coordinator has no data")


def check_participant(name: str, key: str) -> None:
    """Refuse a name that no participant may have, or a key that is not 32 bytes in lower-case hex.

    Raises ConfigError.
    """
    if NAME_PATTERN.fullmatch(name) is None or name in (COORDINATOR, SELF):
        raise ConfigError(
            f"{name!r} can't name a participant: 1 to 64 letters, digits and . _ @ -, not {COORDINATOR!r} or {SELF!r}"
        )
    if len(key) != KEY_HEX_DIGITS or not set(key) <= set("0123456789abcdef"):
        raise ConfigError(f"the identity key of {name} is not {KEY_HEX_DIGITS} lower-case hex digits")
