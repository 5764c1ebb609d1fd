"""What is possible under masks: robust aggregation over the sums of random groups.

Masks hide individual updates, so no rule can look at them. Participants are dealt into groups at random, each group's
sum is opened by a session of its own, and a rule combines the groups' means. What that takes, and gives:

**Nobody checks a masked update.** There is no range proof: a participant can add any element mod 2^b to each entry of
its group's sum, and any number to the weight. Without a check on what comes out, the only bound on one liar is the ring
itself (`Influence.ring`).

**The sum is checked.** Honest participants clip, so the mean of an honest group is no longer than the clip bound, up to
rounding and noise (`honest_limit`). Every group whose mean is longer is left out (`exceeding`). That looks at the very
vector that would be used, so wrapping around the ring helps nobody: whatever a liar added, what gets through lies
within the limit, with certainty. Only the false alarm, an honest group above the limit, has a probability.

**A liar speaks for its whole group.** Within the limit a group with one liar can show any mean, and claim the weight
of a full group. So a rule counts dirty groups, not liars: m liars make at most m groups dirty, and `clean_groups` says
how many stay clean. Hand in equal weights, or numbers of members, and not claimed examples.

**What it costs in privacy.** Each group's mean is revealed, instead of one mean of everybody: an update hides among the
honest members of its group only, and noise sized for a group must be in every group. A group therefore needs the plan's
minimum by itself. Whoever picks the seed picks the groups: it must be random and fixed after the names are, and a
participant that does not trust the coordinator for that must assume the worst group, not a random one.

Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
algorithm 1: means of s updates have a variance smaller by a factor s, at the price of up to s times the fraction of
liars. Their server sees the updates and buckets them itself; here the sum is all that it sees.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ridotto.errors import PlanError
from ridotto.learn.robust.norms import SLACK
from ridotto.learn.robust.rule import Updates, is_number, norm

DOMAIN = b"ridotto/1 robust groups\x00"
SEED_BYTES = 32

TOO_LONG = "its sum is longer than honest participants can make it"


def group_of(names: Sequence[str], seed: bytes, groups: int) -> dict[str, int]:
    """Deal participants into groups at random: name -> group, 0 to groups - 1; sizes differ by at most one.

    names: all different, in any order: the result depends on the set only. seed: 32 bytes, public, and random to
    everyone who could still choose a name. Names are sorted by SHA-256 and dealt in turn.
    Raises PlanError if there are fewer names than groups, a name is there twice, or the seed has another length.
    """
    if len(seed) != SEED_BYTES:
        raise PlanError(f"the seed of the groups has {len(seed)} bytes, it must have {SEED_BYTES}")
    if len(set(names)) != len(names):
        raise PlanError("two participants have the same name")
    _check_groups(len(names), groups)
    dealt = sorted(names, key=lambda name: (hashlib.sha256(DOMAIN + seed + name.encode()).digest(), name))
    return {name: place % groups for place, name in enumerate(dealt)}


def group_sizes(participants: int, groups: int) -> tuple[int, ...]:
    """Return how many members each group has, in order.

    Raises PlanError if there are fewer participants than groups.
    """
    _check_groups(participants, groups)
    small, more = divmod(participants, groups)
    return (small + 1,) * more + (small,) * (groups - more)


def honest_limit(clip: float, length: int, deviation: float, false_alarm: float = 2.0**-40) -> float:
    """Return an l2 norm that the mean of a group of honest participants exceeds with a small probability only.

    clip: what each clips to. length: d. deviation: standard deviation of rounding and noise in one entry of the group's
    mean, see `deviation_of`; 0 gives the clip bound itself. false_alarm: probability for one group, in (0, 1).
    Rounding is bounded and (discrete) Gaussian noise is sub-Gaussian, independent in every entry, so their norm is at
    most deviation * (sqrt(d) + sqrt(2 ln(1 / false_alarm))) but for this probability (Hsu, Kakade, Zhang, "A Tail
    Inequality for Quadratic Forms of Subgaussian Random Vectors", 2012, theorem 2.1 with the identity). Skellam noise
    is not sub-Gaussian: for it this is an approximation.
    Raises PlanError for a number out of range.
    """
    _require(is_number(clip) and clip > 0, "the clip bound must be a number above 0", clip)
    _require(length >= 1, "the length of a model must be at least 1", length)
    _require(is_number(deviation) and deviation >= 0, "the deviation must be a number of at least 0", deviation)
    _require(is_number(false_alarm) and 0 < false_alarm < 1, "the false alarm must be between 0 and 1", false_alarm)
    return clip + deviation * (math.sqrt(length) + math.sqrt(2 * math.log(1 / false_alarm)))


def deviation_of(members: int, unit: float, noise: float = 0.0) -> float:
    """Return the standard deviation of rounding and noise in one entry of a group's mean, as `honest_limit` needs it.

    members: of the group. unit: what one unit of the fixed point is in the group's mean: resolution * max_weight /
    summed weight. noise: standard deviation of all noise in an entry of the mean.
    Unbiased rounding moves an entry by less than a unit, between two neighbours, so its deviation is at most half of
    one, and it is sub-Gaussian with that (Hoeffding's lemma).
    Raises PlanError for a number out of range.
    """
    _require(members >= 1, "a group has at least 1 member", members)
    _require(is_number(unit) and unit >= 0, "the unit must be a number of at least 0", unit)
    _require(is_number(noise) and noise >= 0, "the noise must be a number of at least 0", noise)
    return math.hypot(math.sqrt(members) / 2 * unit, noise)


def exceeding(group_means: Updates, limits: Sequence[float]) -> dict[int, str]:
    """Return the groups whose mean is longer than its limit, and why they are left out.

    group_means: float32, shape (groups, d). limits: one for each group, from `honest_limit`.
    What is not finite is left to the rule, which leaves it out anyway.
    Raises PlanError if there is not one positive limit for each group.
    """
    if len(limits) != len(group_means) or not all(is_number(limit) and limit > 0 for limit in limits):
        raise PlanError(f"{len(group_means)} groups need as many limits above 0; found {len(limits)}")
    norms = [norm(mean) for mean in group_means]
    return {group: TOO_LONG for group, limit in enumerate(limits) if norms[group] > limit * SLACK}


def clean_groups(participants: int, attackers: int, groups: int) -> tuple[float, ...]:
    """Return the probability that exactly k groups have no attacker, for k from 0 to `groups`.

    Attackers are `attackers` random ones among the participants, who are dealt as `group_of` does. Exact: integers by
    inclusion and exclusion, divided once at the end. Takes groups^2 steps.
    Raises PlanError if there are more attackers than participants or fewer participants than groups.
    """
    ways = _clean_ways(participants, attackers, groups)
    total = math.comb(participants, attackers)
    return tuple(way / total for way in ways)


def at_most_dirty(participants: int, attackers: int, groups: int, dirty: int) -> float:
    """Return the probability that at most `dirty` groups have an attacker, exact up to one rounding.

    A rule over groups that withstands f attackers holds with the probability of at most f dirty groups; with
    f >= attackers that is 1. Raises PlanError as `clean_groups` does.
    """
    ways = _clean_ways(participants, attackers, groups)
    return sum(ways[max(0, groups - dirty) :]) / math.comb(participants, attackers)


@dataclass(frozen=True)
class Influence:
    """Say how far one liar can move the mean of a round, in l2 norm, by what is checked. All are worst cases.

    clipped: everybody's update is clipped by whoever sees it, or the liar clips too. group: masks, and groups
    that are too long (`exceeding`) are left out; the groups' means are then averaged. ring: masks without that check.
    """

    clipped: float
    group: float
    ring: float


def influence(
    clip: float, weight_cap: float, total_weight: float, *, group_weight: float, limit: float, reach: float, length: int
) -> Influence:
    """Return how far one liar can move the mean, away from what it is without the liar (and the liar's group).

    clip (C): bound on an update. weight_cap (A): the most weight of one participant. total_weight (W): summed, with
    what the liar claims. group_weight: the most that the liar's group counts for, of W. limit: from `honest_limit`.
    reach: largest |entry| that the ring can hold, as an entry of the mean: 2^(b - 1) * resolution * max_weight / W.
    length: d.

    clipped = 2 C A / W. The mean is (W - a) / W of the others' mean M, |M| <= C, and a / W of the liar's x, |x| <= C:
    it is a / W * (x - M) away from M, and a <= A.
    group = (limit + C) * group_weight / W, the same for the group's mean: a liar speaks for its group.
    ring = sqrt(d) * reach + C: no entry of a sum is further from 0 than reach, and masks keep nobody from getting
    there, up to what the others' sum adds. The liar can lie in the weight as well; W is then what the sum says.
    Raises PlanError for numbers that are not positive, or a weight above the total.
    """
    numbers = (clip, weight_cap, total_weight, group_weight, limit, reach, length)
    _require(all(is_number(number) and number > 0 for number in numbers), "influence needs numbers above 0", numbers)
    largest = max(weight_cap, group_weight)
    _require(largest <= total_weight, f"no share of the weight is above the total, {total_weight:g}", largest)
    return Influence(
        clipped=2 * clip * weight_cap / total_weight,
        group=(limit + clip) * group_weight / total_weight,
        ring=math.sqrt(length) * reach + clip,
    )


def _check_groups(participants: int, groups: int) -> None:
    if not 1 <= groups <= participants:
        raise PlanError(f"{participants} participants can be dealt into 1 to {participants} groups, not {groups}")


def _clean_ways(participants: int, attackers: int, groups: int) -> list[int]:
    """Return in how many ways the attackers can be placed so that exactly k groups are clean, for every k."""
    sizes = group_sizes(participants, groups)
    if not 0 <= attackers <= participants:
        raise PlanError(f"{attackers} of {participants} participants can't be attackers")
    small = participants // groups
    larger = sum(size > small for size in sizes)
    # chosen[c]: choices of c groups, times the ways to place everybody outside of them.
    chosen = [0] * (groups + 1)
    for big in range(larger + 1):
        for rest in range(groups - larger + 1):
            outside = participants - big * (small + 1) - rest * small
            ways = math.comb(outside, attackers)
            if ways:
                chosen[big + rest] += math.comb(larger, big) * math.comb(groups - larger, rest) * ways
    return [
        sum((-1) ** (more - clean) * math.comb(more, clean) * chosen[more] for more in range(clean, groups + 1))
        for clean in range(groups + 1)
    ]


def _require(holds: bool, expected: str, found: object) -> None:
    if not holds:
        raise PlanError(f"{expected}, not {found!r}")
