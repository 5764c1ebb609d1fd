"""What an operator decides about rounds that xaynet's clients take part in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ridotto.errors import ConfigError
from ridotto.secagg.xaynet.config import MaskConfigPair

LEAST_UPDATES = 3
"""As in the original: below three, an updater and the mean tell of the other one. It is no privacy by itself."""

DEFAULT_CONFIGS = MaskConfigPair()
"""As in the original's example: prime order, float32, weights from -1 to 1, at most 1,000 updates."""

LONGEST_MESSAGE = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class PhaseLimits:
    """Say how many messages a phase takes, and how long.

    least, most: accepted messages. A phase ends when it has `most`, or after `min_s` seconds with `least`; after
    `max_s` without them the round fails. The original waits `min_s` in any case.
    Raises ConfigError if least or time are not from their minimum to their maximum.
    """

    least: int
    most: int
    min_s: float
    max_s: float

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigError(f"a phase takes {self.least} to {self.most} messages: expected 1 <= least <= most")
        if not (0 <= self.min_s <= self.max_s and math.isfinite(self.max_s)):
            raise ConfigError(f"a phase takes {self.min_s} to {self.max_s} seconds: expected 0 <= min <= max")


@dataclass(frozen=True, kw_only=True)
class XaynetSettings:
    """Describe the rounds.

    length: weights of the model. sum_chance, update_chance: of a participant, to be chosen for a task; updaters are
    chosen among those who are not summers. sum, update, sum2: limits of the phases. configs: how numbers are masked.
    unfinished_bytes: held at most of messages that come in pieces.
    Raises ConfigError with what was found and what was expected.
    """

    length: int
    sum_chance: float
    update_chance: float
    sum: PhaseLimits
    update: PhaseLimits
    sum2: PhaseLimits
    configs: MaskConfigPair = DEFAULT_CONFIGS
    unfinished_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"a model has at least one weight, not {self.length}")
        if not (0 < self.sum_chance < 1 and 0 < self.update_chance <= 1):
            raise ConfigError(
                f"the chances are {self.sum_chance} and {self.update_chance}: expected 0 < sum < 1 and 0 < update <= 1"
            )
        if self.update.least < LEAST_UPDATES:
            raise ConfigError(f"at least {LEAST_UPDATES} updates are needed, not {self.update.least}")
        most = min(self.configs.vect.most_models, self.configs.unit.most_models)
        if self.update.most > most:
            raise ConfigError(f"{self.update.most} updates are more than the {most} that the masks have room for")
        if self.sum2.least > self.sum.least:
            raise ConfigError(
                f"{self.sum2.least} masks are needed of perhaps {self.sum.least} summers: expected sum2 <= sum"
            )
        if self.length * self.configs.vect.number_bytes >= LONGEST_MESSAGE // 2:
            raise ConfigError(f"a message can't hold {self.length} weights of {self.configs.vect.number_bytes} bytes")
        if self.unfinished_bytes < 0:
            raise ConfigError(f"unfinished_bytes is at least 0, not {self.unfinished_bytes}")
