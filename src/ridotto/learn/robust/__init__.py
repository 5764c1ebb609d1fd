"""Robust aggregation: combine updates of which some are lies. One file for each idea, and `rule` to make one by name.

`groups` says what is possible under masks. `docs/robustness.md` compares the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ridotto.learn.registry import constructor_of
from ridotto.learn.robust.coordinate import median, trimmed_mean
from ridotto.learn.robust.geometric import geometric_median
from ridotto.learn.robust.krum import bulyan, krum, multi_krum
from ridotto.learn.robust.norms import mean, norm_bound, norm_filter, relative_norm_filter
from ridotto.learn.robust.rule import Combined as Combined
from ridotto.learn.robust.rule import Rule as Rule
from ridotto.learn.robust.trust import fltrust

_CONSTRUCTORS: Mapping[str, Callable[..., Rule]] = {
    constructor.__name__: constructor
    for constructor in (
        mean,
        median,
        trimmed_mean,
        krum,
        multi_krum,
        bulyan,
        geometric_median,
        norm_bound,
        norm_filter,
        relative_norm_filter,
        fltrust,
    )
}

RULES: tuple[str, ...] = tuple(_CONSTRUCTORS)
"""The names that `rule` knows."""


def rule(name: str, **parameters: float) -> Rule:
    """Make the rule called `name`, as a configuration file asks for it.

    parameters: those of the constructor of that name.
    Raises PlanError for an unknown name, an unknown or missing parameter (listing the known ones), or a number out
    of range. Whether there are enough participants says `Rule.withstands`.

    >>> rule("krum", attackers=2).least(2)
    7
    """
    return constructor_of("robust rule", _CONSTRUCTORS, name, parameters)(**parameters)
