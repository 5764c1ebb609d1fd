"""What a round of a protocol would cost and whom it would lose, computed instead of run.

The machines of `secagg` decide by counting: who is left in each step, and whether enough are. So does this module, for
all sessions of a round at once. In a complete graph the counts are exact; in a sparse one the graph is drawn from the
keys in the real protocol and from `seed` here, which is the same in distribution as long as drop-outs are random.

Everybody is taken to be honest: who drops out stays silent, nobody lies. Bytes are those of HTTP bodies, as the wire's
frames take them, the model's download excluded. Tests hold `modelled_round` to the machines' own runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ridotto.core.vector import Layout
from ridotto.errors import ConfigError, RoundFailedError
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.secagg.messages import (
    Consistency,
    Delivery,
    Evidence,
    KeyBook,
    PublicKeys,
    SealedShares,
    Survivors,
    Unmask,
)
from ridotto.secagg.session import FailureCode
from ridotto.simulate.courses import Course, one_message_course, pairwise_course
from ridotto.simulate.faults import ANNOUNCE, sent_in
from ridotto.simulate.helpers import helper_names, served_cpu, served_traffic
from ridotto.simulate.message_sizes import Counts, announce_bytes, closed_bytes, message_bytes, sizes, vector_bytes
from ridotto.simulate.oneshot_course import OneshotCourse, oneshot_courses, oneshot_cpu

ROUND_TRIPS = {"ideal": 1, "pairwise": 5, "oneshot": 5, "committee": 2}
"""How often a participant waits for the coordinator to have heard everyone, by protocol. In `oneshot` only those with a
seat on the committee do, but they are waited for; in `committee` once for its members' keys."""


@dataclass(frozen=True)
class UnitCosts:
    """Hold CPU seconds of what a round is made of.

    Defaults: docs/benchmarks.md, from the breakdowns of "round: n = 100, d = 1,000,000" and "n = 1,000, d = 10,000",
    divided by how often each thing is done; Intel Xeon family 6 model 167 with vector AES, one core. Devices that are
    slower by a factor: `scaled`.
    """

    encode_s: float = 5.4e-9
    """An element of an update: check, clip, round, lanes."""
    mask_s: float = 3.5e-10
    """An element of one mask: expand and add."""
    mask_start_s: float = 4.5e-6
    """One mask, whatever its length: 8.0 us at 10,000 elements less 3.5 us for these."""
    hash_s: float = 5e-10
    """A byte of a vector. A participant hashes its vector twice, the coordinator once."""
    fold_s: float = 7e-10
    """An element: packed on one side, added to the sum on the other, together."""
    apply_s: float = 1e-8
    """An element of the opened sum: decode, mean, step of the model."""
    verify_s: float = 9e-5
    """A signature to check (Ed25519)."""
    sign_s: float = 4e-5
    """A signature to make. Too few are made to be seen in the breakdowns: OpenSSL's usual half of a check."""
    agree_s: float = 3.4e-5
    """A key agreement (X25519 and HKDF)."""
    seal_s: float = 2e-6
    """A box to seal or to open."""
    encapsulate_s: float = 2e-5
    """A secret to encapsulate (ML-KEM-768)."""
    decapsulate_s: float = 3e-5
    """A secret to take out again."""
    share_s: float = 2.1e-6
    """A point of a secret to share."""
    commit_s: float = 1.3e-6
    """A commitment to make or to check."""
    wire_s: float = 3e-9
    """A byte of a message to encode or to decode, vectors excluded."""
    copy_s: float = 5e-10
    """A byte of a vector to put into a frame or to take out of one."""
    pair_s: float = 2e-5
    """Everything else that a participant does for each of its neighbours, and Python's part in it."""

    encrypt_s: float = 6.4e-8
    """A coefficient of a ciphertext to make."""
    fold_cipher_s: float = 2.8e-10
    """A coefficient of a ciphertext to add to a sum."""
    open_cipher_s: float = 6e-8
    """A coefficient of a sum of ciphertexts to open."""
    key_s: float = 2.9e-3
    """A lattice key to draw and to share, and the noise's tables."""
    parcel_s: float = 3.5e-5
    """Everything else that a seat does for each parcel, and Python's part in it."""

    def scaled(self, factor: float) -> UnitCosts:
        """Return the costs on a processor that takes `factor` times as long."""
        return replace(self, **{name: value * factor for name, value in vars(self).items()})


UNIT_COSTS = UnitCosts()


@dataclass(frozen=True)
class ModelledRound:
    """Tell how a round would have gone. Members are named by rank, their place in the cohort.

    included: bool, shape (members,): whose updates are in an opened sum; of a session that failed, nobody's. failure:
    why no session was opened, as a record says it, or nothing. session_failures: by shard, those that failed.
    lost_before: int8, shape (members,): which of the protocol's messages was the first that a member did not send, as
    an index into `SENT`, or -1. bytes_up, bytes_down: of all members together, the model's download excluded.
    messages: of both ways. told: bool, shape (members,): who was there to be told of the round, so downloaded the model
    and trained. waited_s: virtual seconds that the round spent waiting for members that were gone, in its slowest
    session. coordinator_cpu_s: all of its work. participant_cpu_s: of all members together, training excluded. reasons:
    why a member is lost that did not send a message, for each of them. Of helpers, nothing is counted.
    """

    included: NDArray[np.bool_]
    failure: str
    session_failures: Mapping[int, str]
    lost_before: NDArray[np.int8]
    bytes_up: int
    bytes_down: int
    messages: int
    told: NDArray[np.bool_]
    waited_s: float
    coordinator_cpu_s: float
    participant_cpu_s: float
    reasons: tuple[str, ...]

    @property
    def count(self) -> int:
        """Return how many contributions are in the applied sums."""
        return int(np.count_nonzero(self.included))

    @property
    def trained(self) -> int:
        """Return how many downloaded the model and trained."""
        return int(np.count_nonzero(self.told))

    @cached_property
    def lost(self) -> dict[int, str]:
        """Return, by rank, why each lost member was lost, in the words of the protocol's machines."""
        ranks = np.flatnonzero(self.lost_before >= 0)
        return {int(rank): self.reasons[step] for rank, step in zip(ranks, self.lost_before[ranks], strict=True)}


def stages(plan: Plan, members: int, gone: Mapping[int, str]) -> NDArray[np.int8]:
    """Turn rank -> message into how far each member comes, int8, shape (members,).

    0: leaves before the announcement; k: before the k-th message that participants of the protocol send; one more than
    there are messages: stays. Callers with many drop-outs make such an array themselves.
    Raises ConfigError for an unknown rank, or a message that participants of this protocol do not send.
    """
    order = {name: stage for stage, name in enumerate((ANNOUNCE, *sent_in(plan)))}
    far = np.full(members, len(order), np.int8)
    for name in set(gone.values()):
        if name not in order:
            raise ConfigError(f"with this plan a participant can leave before {', '.join(order)}, not {name!r}")
    ranks = np.fromiter(gone.keys(), np.int64, len(gone))
    if len(ranks) and not (ranks.min() >= 0 and ranks.max() < members):
        raise ConfigError(f"ranks are 0 to {members - 1}, not {ranks.min()} to {ranks.max()}")
    far[ranks] = np.fromiter((order[name] for name in gone.values()), np.int8, len(gone))
    return far


def modelled_round(
    plan: Plan,
    size: int | Layout,
    members: int,
    gone: Mapping[int, str] | NDArray[np.int8],
    *,
    number: int = 1,
    name_bytes: int = 12,
    name_of: Callable[[int], str] = "member {}".format,
    units: UnitCosts = UNIT_COSTS,
    seed: int = 0,
) -> ModelledRound:
    """Compute what a round of `members` participants costs and who is in its sum.

    size: d, or the model's layout. gone: rank -> the message before which a member leaves ("Announce": before
    training), or what `stages` makes of it. number: of the round, which the announcement holds. name_bytes: length of a
    member's name. name_of: a member's name by rank, for the reason of a failure that names one. seed: of a sparse
    graph. Raises RoundFailedError, as the machines do, if the members are too few for one session; PlanError if no
    sparse graph over them is safe.
    """
    far = gone if isinstance(gone, np.ndarray) else stages(plan, members, gone)
    shards = max(1, plan.sessions_of(members))
    if members // shards < plan.least or members < plan.quorum:
        raise RoundFailedError("TOO_FEW", f"{members} participants are there, a session needs {plan.least}")
    if plan.protocol_name == "oneshot" and plan.helpers is None:
        return _oneshot_round(plan, size, far, shards, (number, name_bytes), units, seed)
    if len(sent_in(plan)) == 1:
        course = one_message_course(plan, far, shards)
    else:
        course = pairwise_course(plan, far, shards, seed)
    failures = {int(shard): _failure(plan, course, int(shard), name_of) for shard in np.flatnonzero(course.failed)}
    failure = "; ".join(failures.values()) if len(failures) == shards else ""
    announce = _announced(plan, size, course.size, number, name_bytes)
    if plan.helpers is None:
        up, down = _traffic(plan, course, announce, vector_bytes(plan, size), closed_bytes(failure))
        coordinator, participants = _cpu(plan, course, size, up + down, units)
    else:
        up, down = served_traffic(plan, course, announce, size, closed_bytes(failure))
        coordinator, participants = served_cpu(plan, course, size, up + down, units)
    return ModelledRound(
        included=course.in_sum & ~course.failed[np.arange(members) % shards],
        failure=failure,
        session_failures=failures,
        lost_before=course.lost_before,
        bytes_up=up,
        bytes_down=down,
        messages=course.messages + (0 if plan.helpers is None else int(course.told.sum())),
        told=far > 0,
        waited_s=_waited(plan, course),
        coordinator_cpu_s=coordinator,
        participant_cpu_s=participants,
        reasons=_reasons(plan),
    )


def _oneshot_round(
    plan: Plan,
    size: int | Layout,
    far: NDArray[np.int8],
    shards: int,
    named: tuple[int, int],
    units: UnitCosts,
    seed: int,
) -> ModelledRound:
    """Compute a round of `oneshot`, session by session. named: the round's number, and the bytes of a member's name."""
    members, pipeline = len(far), Pipeline(plan, size)
    courses = list(oneshot_courses(plan, pipeline, far, shards, seed))
    counts = np.array([len(course.told) for course in courses])
    failures = {shard: course.failure for shard, course in enumerate(courses) if course.failed}
    failure = "; ".join(failures.values()) if len(failures) == shards else ""
    told, end = (np.array([int(some.sum()) for some in lists]) for lists in _lists(courses))
    down = int(np.sum(told * _announced(plan, size, counts, *named)) + end.sum() * closed_bytes(failure))
    included, lost, was_told = np.zeros(members, np.bool_), np.zeros(members, np.int8), np.zeros(members, np.bool_)
    work = [oneshot_cpu(course, pipeline, units) for course in courses]
    for shard, course in enumerate(courses):
        included[shard::shards] = course.in_sum & (not course.failed)
        lost[shard::shards], was_told[shard::shards] = course.lost_before, course.told
    return ModelledRound(
        included=included,
        failure=failure,
        session_failures=failures,
        lost_before=lost,
        bytes_up=sum(course.up for course in courses),
        bytes_down=down + sum(course.down for course in courses),
        messages=int(told.sum() + end.sum()) + sum(course.spoken for course in courses),
        told=was_told,
        waited_s=max(course.waited_s for course in courses),
        coordinator_cpu_s=sum(coordinator for coordinator, _ in work),
        participant_cpu_s=sum(participants for _, participants in work),
        reasons=_reasons(plan),
    )


def _lists(courses: Sequence[OneshotCourse]) -> tuple[list[NDArray[np.bool_]], list[NDArray[np.bool_]]]:
    return [course.told for course in courses], [course.heard_end for course in courses]


def _announced(plan: Plan, size: int | Layout, counts: Counts, number: int, name_bytes: int) -> Counts:
    """Return the bytes of every session's announcement. counts: members of each."""
    helpers = helper_names(plan)
    announced = np.array([announce_bytes(plan, size, int(n), number, name_bytes, helpers) for n in _both(counts)])
    # A shard's own number is part of its session: one byte more from 128 on, two from 256 on.
    shard = np.arange(len(counts))
    every: Counts = announced[(counts > counts.min()).astype(int)] + (shard >= 1 << 7) + (shard >= 1 << 8)
    return every


def _both(size: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the sizes of sessions in a round, ascending: at most two."""
    return tuple(sorted({int(size.min()), int(size.max())}))


def _reasons(plan: Plan) -> tuple[str, ...]:
    return ("sent no vector",) if plan.protocol_name == "ideal" else tuple(f"sent no {kind}" for kind in sent_in(plan))


def _failure(plan: Plan, course: Course, shard: int, name_of: Callable[[int], str]) -> str:
    """Say why a session failed, as its machine does."""
    step = int(course.closed[shard])
    needed = int(course.needed[min(step, len(course.needed) - 1), shard])
    if plan.protocol_name == "ideal":
        found = int(course.answered[0, shard])
        reason = f"{found} of {course.size[shard]} sent a vector, {needed} are needed"
    elif step < len(course.answered):
        reason = f"{course.answered[step, shard]} sent {sent_in(plan)[step]}, {needed} are needed"
    else:
        rank, secret, shares = course.unopened[shard]
        what = f"{shares} shares of {name_of(rank)}'s {secret}"
        reason = f"{what}, {needed} are needed; 0 could not open theirs"
    return str(RoundFailedError(FailureCode.TOO_FEW, reason))


def _traffic(plan: Plan, course: Course, announce: NDArray[np.int64], vector: int, closed: int) -> tuple[int, int]:
    """Return bytes up and down of all members together."""
    down = np.sum(course.told * announce) + np.sum(course.heard_end) * closed
    if plan.protocol_name == "ideal":
        return int(course.answered[0].sum()) * vector, int(down)
    keys, _, vectors, signed, _ = course.sent
    up = (
        keys.sum() * message_bytes(PublicKeys)
        + course.bytes_of(SealedShares)
        + vectors.sum() * vector
        + signed.sum() * message_bytes(Consistency)
        + course.bytes_of(Unmask)
    )
    # Each step's answer goes to everyone whose message closed the step, and (but for Delivery) lists them.
    down += sum(
        np.sum(course.shown[step] * sizes(kind, course.shown[step]))
        for step, kind in ((0, KeyBook), (2, Survivors), (3, Evidence))
    )
    down += course.bytes_of(Delivery)
    return int(up) + course.excess_up, int(down) + course.excess_down


def _waited(plan: Plan, course: Course) -> float:
    """Return the virtual seconds of time-outs: a step in which somebody is missing closes when time is up."""
    patience = np.full((len(course.sent), 1), plan.phase_s)
    patience[0] = plan.train_s
    return float(np.max(np.sum(course.timed_out * patience, axis=0)))


def _cpu(plan: Plan, course: Course, size: int | Layout, traffic: int, units: UnitCosts) -> tuple[float, float]:
    """Return CPU seconds of the coordinator and of all participants together."""
    length = Pipeline(plan, size).length
    vectors = int(course.sent[0 if plan.protocol_name == "ideal" else 2].sum())
    packed = vectors * vector_bytes(plan, size)
    told, opened = int(course.told.sum()), int(np.count_nonzero(~course.failed))
    both = 0.5 * units.fold_s * vectors * length + units.wire_s * (traffic - packed) + units.copy_s * packed
    coordinator = both + units.hash_s * packed + units.sign_s * len(course.size)
    if opened:
        coordinator += units.apply_s * length
    participants = both + 2 * units.hash_s * packed + units.verify_s * told + units.encode_s * length * told
    if plan.protocol_name == "ideal":
        return coordinator, participants
    keys, _, _, signed, unmasked = (int(count.sum()) for count in course.sent)
    mask = units.mask_start_s + units.mask_s * length
    participants += (
        units.sign_s * (keys + signed)
        + units.verify_s * (course.keys_checked + course.votes_checked)
        + (2 * units.agree_s + units.pair_s + units.seal_s + 2 * units.commit_s + 2 * units.share_s) * course.paired
        + (units.seal_s + 2 * units.commit_s) * course.delivered
        + mask * (course.masked + vectors)
    )
    coordinator += (
        (units.verify_s + 2 * units.agree_s) * keys
        + units.verify_s * signed
        + units.commit_s * (unmasked + course.revealed)
        + mask * (course.survivors_opened + course.orphans)
        + units.agree_s * course.orphans
    )
    return coordinator, participants
