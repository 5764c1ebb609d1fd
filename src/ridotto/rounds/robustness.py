"""What a plan does about liars: a robust rule over the sums that are opened, one sum for each group of participants.

Where the coordinator sees every update anyway (protocol `ideal`), a group may be one participant, and the rule is its
paper's. Behind masks a group hides its members, so it is at least as large as the plan's minimum, and the rule counts
groups that a liar has spoilt. Every group is a session of its own, dealt by the round's nonce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ridotto.errors import PlanError
from ridotto.learn.robust import Rule, rule
from ridotto.rounds.settings import Settings, make_floats, refuse_huge

if TYPE_CHECKING:
    from ridotto.rounds.plan import Plan

INDIVIDUAL = 0
"""The number of groups that stands for one participant each."""

LARGEST_GROUPS = 10_000


class _Groups(Settings, frozen=True):
    """Stand above what a plan's `robust` may be: a rule over groups."""

    def __post_init__(self) -> None:
        refuse_huge({name: getattr(self, name) for name in self.__struct_fields__})
        if not 0 <= self.groups <= LARGEST_GROUPS:
            raise PlanError(f"groups are 0 (one for each participant) to {LARGEST_GROUPS}, not {self.groups}")
        self.build()

    @property
    def groups(self) -> int:
        """Return into how many groups the cohort is dealt."""
        raise NotImplementedError

    @property
    def individual(self) -> bool:
        """Tell whether every participant is a group."""
        return self.groups == INDIVIDUAL

    def build(self) -> Rule:
        """Return the rule. Raises PlanError if the name or a parameter is unknown."""
        raise NotImplementedError


class NormBound(_Groups, frozen=True, tag_field="name", tag="norm-bound"):
    """Average the groups whose mean is no longer than honest members can make it, and leave the others out.

    What one liar can do is bounded by the clip times its group's share of the weight; nobody's direction is looked at.
    groups: at least so many; 0 means one for each participant, which needs the protocol `ideal`.
    Source: the threshold of Sun et al., "Can You Really Backdoor Federated Learning?", 2019, section 4, on sums.
    """

    groups: int = 1

    def build(self) -> Rule:
        """Return the rule."""
        return rule("mean")


class BucketedMedian(_Groups, frozen=True, tag_field="name", tag="bucketed-median"):
    """Take the coordinate-wise median of the groups' means: it holds while most groups have no liar in them.

    groups: into how many the cohort is dealt, each at least as large as the plan's minimum.
    Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022;
    median, Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018.
    """

    groups: int

    def build(self) -> Rule:
        """Return the rule."""
        return rule("median")


class Robust(_Groups, frozen=True, tag_field="name", tag="rule"):
    """Combine the means of groups by any rule of `learn.robust`.

    rule: its name. parameters: its numbers; `attackers` counts groups with a liar in them. groups: into how many the
    cohort is dealt; 0 means one for each participant, as in the rules' papers, which needs the protocol `ideal`.

    >>> Robust("krum", {"attackers": 2}).build().least(2)
    7
    """

    rule: str
    parameters: dict[str, float] = msgspec.field(default_factory=dict)
    groups: int = INDIVIDUAL

    def __post_init__(self) -> None:
        refuse_huge(self.parameters)
        make_floats(self, "parameters")
        _Groups.__post_init__(self)

    def build(self) -> Rule:
        """Return the rule. Raises PlanError if the name or a parameter is unknown."""
        if "name" in self.parameters:
            raise PlanError(f"{self.rule} has no parameter 'name'")
        return rule(self.rule, **self.parameters)


Robustness = NormBound | BucketedMedian | Robust
"""What stands in a plan's `robust`."""


def check_robust(robust: Robustness, ideal: bool, clipped: bool, plan: Plan) -> None:
    """Refuse a rule that the rest of a plan makes impossible.

    ideal: the coordinator sees every update. clipped: updates have a largest norm. Raises PlanError.
    """
    chosen = robust.build()
    if robust.individual and not ideal:
        raise PlanError(
            f"{chosen.name} over individual updates needs to see them, and masks hide them: give groups, whose sums "
            'are opened one by one, or take protocol "ideal"'
        )
    if robust.groups > plan.cohort:
        raise PlanError(f"a cohort of {plan.cohort} can't be dealt into {robust.groups} groups")
    if not robust.individual and not clipped:
        raise PlanError(
            "groups need a clip: without, honest sums have no largest norm, and what a liar added can't be told"
        )
    if chosen.name == "mean" and not clipped:
        raise PlanError("a mean of single updates is bounded by the clip alone: a plan with it needs one")
    if plan.max_examples != 1:
        raise PlanError(
            "a robust rule counts heads, because a liar claims any weight: say max_examples = 1 in the plan; it is "
            f"{plan.max_examples}"
        )
    chosen.withstands(min(plan.fewest_sums, plan.sessions_of(plan.cohort)))
