"""Who comes how far in the sessions of a round, by counting: the decisions of `secagg`'s machines without their keys.

A member's *stage* says how far it comes by itself: 0 leaves before the announcement, k before the k-th message that
participants send, the last stage stays. Whether what it sends still finds a session depends on the others.

In a complete graph all members of a session are alike, so counts per session decide everything, and all sessions of a
round are computed at once. In a sparse one a member depends on its neighbours; there are few such sessions, and each is
computed for all its members at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.wire import Message
from ridotto.rounds.plan import Plan
from ridotto.secagg.graph import complete_threshold, sparse_is_safe
from ridotto.secagg.messages import Delivery, SealedShares, Unmask
from ridotto.simulate.message_sizes import Counts, index_excess, sizes

STEPS = 5
"""Messages that participants of `pairwise` send: keys, shares, vector, signature, unmasking."""

Mask = NDArray[np.bool_]


@dataclass
class Course:
    """Count what happened in every session of a round. Arrays are by (step, session) or by session.

    size: members. told: who heard the announcement. answered: who sent, or would have sent, a step's message. needed:
    how many had to; one row more than steps, for the opening. closed: steps that enough answered. failed: no sum was
    opened. heard_end: who was still there when the round closed. in_sum, lost_before: by member of the round, see
    `costs.ModelledRound`; in_sum says nothing of a session that failed. unopened: session -> (rank, secret, shares) of
    the first secret that the shares left do not open, in sparse graphs. The rest is work: `graph_bytes` of the
    messages whose length the graph decides; bytes that indices take beyond one each; signatures checked; directed
    pairs that agreed on keys, had a box delivered, masked; shares revealed; masks that the coordinator took out.
    """

    size: Counts
    told: Counts
    answered: Counts
    needed: Counts
    closed: Counts
    failed: Mask
    heard_end: Counts
    in_sum: Mask
    lost_before: NDArray[np.int8]
    unopened: dict[int, tuple[int, str, int]] = field(default_factory=dict)
    graph_bytes: dict[type[Message], int] = field(default_factory=dict)
    excess_up: int = 0
    excess_down: int = 0
    keys_checked: int = 0
    votes_checked: int = 0
    paired: int = 0
    delivered: int = 0
    masked: int = 0
    revealed: int = 0
    survivors_opened: int = 0
    orphans: int = 0

    def __post_init__(self) -> None:
        step = np.arange(len(self.answered))[:, None]
        expected = np.vstack([self.size, self.answered[:-1]])
        self.sent = np.where(step <= self.closed, self.answered, 0)
        self.shown = np.where(step < self.closed, self.answered, 0)
        self.timed_out = (step <= self.closed) & (self.answered < expected)
        # The last step is answered by the sum, not by a message.
        spoken = self.sent.sum() + self.shown[:-1].sum()
        self.messages = int(self.told.sum() + spoken + self.heard_end.sum())

    def bytes_of(self, kind: type[Message]) -> int:
        """Return the bytes of all messages of one kind whose length the graph decides."""
        return self.graph_bytes.get(kind, 0)


def one_message_course(plan: Plan, stage: NDArray[np.int8], shards: int) -> Course:
    """Count a round of `ideal`, or one with helpers. stage: 0 or 1 leave, 2 stays; int8, shape (members,)."""
    size, beyond = _counts(stage, shards, 2)
    answered = beyond[1:]
    needed = np.full((2, shards), plan.least)
    closed = (answered[0] >= plan.least).astype(np.int64)
    lost = np.where(stage < 2, 0, -1).astype(np.int8)
    return Course(size, beyond[0], answered, needed, closed, closed < 1, answered[0], stage == 2, lost)


def pairwise_course(plan: Plan, stage: NDArray[np.int8], shards: int, seed: int) -> Course:
    """Count a `pairwise` round. stage: 0 to 6, int8, shape (members,). seed: draws the sparse graphs."""
    if plan.sparse(-(-len(stage) // shards)) == (0, 0):
        return _complete(plan, stage, shards)
    sessions = [_sparse(plan, stage[shard::shards], np.random.default_rng([seed, shard])) for shard in range(shards)]
    return _join(sessions, len(stage))


def _counts(stage: NDArray[np.int8], shards: int, last: int) -> tuple[Counts, Counts]:
    """Return the sizes of the sessions, and who comes beyond each stage before the last: shape (last, shards)."""
    shard = np.arange(len(stage)) % shards
    at = np.bincount(stage.astype(np.int64) * shards + shard, minlength=(last + 1) * shards).reshape(last + 1, shards)
    return at.sum(axis=0), at.sum(axis=0) - np.cumsum(at, axis=0)[:-1]


def _close(answered: Counts, needed: Counts) -> Counts:
    """Return how many steps were closed before the first that too few answered."""
    enough = answered >= needed[: len(answered)]
    return np.where(enough.all(axis=0), len(answered), np.argmin(enough, axis=0)).astype(np.int64)


def _needed(minimum: int, threshold: Counts) -> Counts:
    """Return how many must answer each of the five steps, and open each secret."""
    either = np.maximum(minimum, threshold)
    return np.array([np.full_like(threshold, minimum), either, either, either, threshold, threshold])


def _complete(plan: Plan, stage: NDArray[np.int8], shards: int) -> Course:
    size, beyond = _counts(stage, shards, STEPS + 1)
    answered = beyond[1:]
    keys, shares, vectors, _, _ = answered
    distinct, place = np.unique(size, return_inverse=True)
    corrupt = np.array([plan.corrupt_of(int(members)) for members in distinct])[place]
    threshold = (keys + corrupt) // 2 + 1
    needed = _needed(plan.least, threshold)
    closed = _close(answered, needed)
    first = np.maximum(stage, 1) - 1
    lost = np.where((stage <= STEPS) & (first <= closed[np.arange(len(stage)) % shards]), first, -1)
    course = Course(
        size=size,
        told=beyond[0],
        answered=answered,
        needed=needed,
        closed=closed,
        failed=closed < STEPS,
        heard_end=np.take_along_axis(answered, np.minimum(closed, STEPS - 1)[None], axis=0)[0],
        in_sum=stage > 3,
        lost_before=lost.astype(np.int8),
    )
    opened = closed == STEPS
    course.graph_bytes = {
        SealedShares: int(np.sum(course.sent[1] * sizes(SealedShares, np.maximum(keys - 1, 0), own=1))),
        Delivery: int(np.sum(course.shown[1] * sizes(Delivery, np.maximum(shares - 1, 0)))),
        Unmask: int(np.sum(course.sent[4] * sizes(Unmask, shares))),
    }
    course.keys_checked = course.paired = int(np.sum(course.shown[0] * (keys - 1)))
    course.votes_checked = int(np.sum(course.shown[3] * needed[3]))
    course.delivered = int(np.sum(course.shown[1] * (shares - 1)))
    course.masked = int(np.sum(course.sent[2] * (shares - 1)))
    course.revealed = int(np.sum(course.sent[4] * shares))
    course.survivors_opened = int(np.sum(vectors[opened]))
    course.orphans = int(np.sum(((shares - vectors) * vectors)[opened]))
    return course


Degrees = Callable[[Mask], Counts]
"""Count, for every member of a session, its holders in a set of members: itself too where it holds its own shares."""


def _graph(plan: Plan, present: Mask, generator: np.random.Generator) -> tuple[Degrees, int, int]:
    """Return the graph over who is in the key book: its degrees, its threshold, and 1 if it is complete, else 0."""
    size, count = len(present), int(np.count_nonzero(present))
    degree, threshold = plan.sparse(size)
    corrupt = plan.corrupt_of(size)
    if not (count > degree + 1 and sparse_is_safe(count, corrupt, degree, threshold)):
        return (lambda some: np.full(size, np.count_nonzero(some))), complete_threshold(count, corrupt), 1
    circle = generator.permutation(np.flatnonzero(present))

    def degrees(some: Mask) -> Counts:
        on_circle = some[circle].astype(np.int64)
        # A window of `degree` neighbours on a circle, without the member in its middle.
        around = np.concatenate([on_circle[-degree // 2 :], on_circle, on_circle[: degree // 2]])
        running = np.concatenate([[0], np.cumsum(around)])
        found = np.zeros(size, np.int64)
        found[circle] = running[degree + 1 :] - running[: -degree - 1] - on_circle
        return found

    return degrees, threshold, 0


def _sparse(plan: Plan, stage: NDArray[np.int8], generator: np.random.Generator) -> Course:
    """Count one session. A member whose neighbours left refuses to go on, and so counts as lost too."""
    present = stage > 1
    degrees, threshold, own = _graph(plan, present, generator)
    # A complete graph counts the minimum among its holders, a sparse one only somebody else.
    least = plan.least if own else 2
    shared = present & (stage > 2)
    among = degrees(shared)
    masked = shared & (stage > 3) & (among >= threshold) & (among + 1 - own >= least)
    signed = masked & (stage > 4)
    unmasked = signed & (stage > 5) & (degrees(signed) >= max(threshold, least))
    sets = np.array([present, shared, masked, signed, unmasked])
    answered = np.count_nonzero(sets, axis=1)[:, None]
    needed = _needed(plan.least, np.array([threshold]))
    closed = _close(answered, needed)
    unopened = _unopened(sets, degrees(unmasked), threshold) if closed[0] == STEPS else None
    out_before = np.where(sets.all(axis=0), STEPS, np.argmin(sets, axis=0))
    last = int(closed[0])
    course = Course(
        size=np.array([len(stage)]),
        told=np.array([np.count_nonzero(stage > 0)]),
        answered=answered,
        needed=needed,
        closed=closed,
        failed=np.array([last < STEPS or unopened is not None]),
        # Who was to leave later is still there; who refused was there all along.
        heard_end=np.array([_still_there(stage, sets, min(last, STEPS - 1))]),
        in_sum=masked,
        lost_before=np.where((out_before < STEPS) & (out_before <= last), out_before, -1).astype(np.int8),
    )
    if unopened is not None:
        course.unopened[0] = unopened
    _count_work(course, sets, degrees, own, max(threshold, least))
    return course


def _still_there(stage: NDArray[np.int8], sets: Mask, last: int) -> int:
    """Count who had not left when step `last` was the last one: who never came to its own leaving is there."""
    came = np.vstack([np.ones_like(sets[:1]), sets[:-1]])
    left = stage == 0
    for step in range(last + 1):
        left |= came[step] & (stage == step + 1)
    return int(np.count_nonzero(~left))


def _unopened(sets: Mask, revealed: Counts, threshold: int) -> tuple[int, str, int] | None:
    """Return the first secret, in the machine's order, for which too few shares were revealed."""
    _, shared, masked, _, unmasked = sets
    for owners, secret in ((masked & ~unmasked, "seed"), (shared & ~masked, "mask key")):
        short = np.flatnonzero(owners & (revealed < threshold))
        if len(short):
            return int(short[0]), secret, int(revealed[short[0]])
    return None


def _count_work(course: Course, sets: Mask, degrees: Degrees, own: int, votes: int) -> None:
    """Fill in what members sent, listed and computed."""
    present, shared, masked, signed, unmasked = sets
    sent, shown = course.sent[:, 0], course.shown[:, 0]
    book, boxes = degrees(present) - own, degrees(shared) - own
    course.graph_bytes = {
        SealedShares: int(np.sum(sizes(SealedShares, book[shared], own))) if sent[1] else 0,
        Delivery: int(np.sum(sizes(Delivery, boxes[shared]))) if shown[1] else 0,
        Unmask: int(np.sum(sizes(Unmask, boxes[unmasked] + own))) if sent[4] else 0,
    }
    excess = index_excess(np.arange(len(present)))
    listed = [int(np.sum(excess[some])) for some in (present, masked, signed)]
    course.excess_down = int(shown[0] * listed[0] + shown[2] * listed[1] + shown[3] * listed[2])
    if shown[1]:
        course.excess_down += int(np.sum((excess * (degrees(shared) - own))[shared]))
    if sent[4]:
        course.excess_up = int(np.sum((excess * degrees(unmasked))[shared]))
    course.keys_checked = int(shown[0] * (shown[0] - 1)) if shown[0] else 0
    course.votes_checked = int(shown[3]) * votes
    course.paired = int(np.sum(book[present])) if shown[0] else 0
    course.delivered = int(np.sum(boxes[shared])) if shown[1] else 0
    course.masked = int(np.sum(boxes[masked])) if sent[2] else 0
    course.revealed = int(np.sum(boxes[unmasked] + own)) if sent[4] else 0
    if not course.failed[0]:
        course.survivors_opened = int(np.count_nonzero(masked))
        course.orphans = int(np.sum(degrees(masked)[shared & ~masked]))


def _join(sessions: list[Course], members: int) -> Course:
    """Put the sessions of a round side by side; member r of the round is member r // n of session r mod n."""
    count = len(sessions)
    in_sum, lost = np.zeros(members, np.bool_), np.zeros(members, np.int8)
    for shard, session in enumerate(sessions):
        in_sum[shard::count], lost[shard::count] = session.in_sum, session.lost_before
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(session, name) for session in sessions], axis=-1)
        for name in ("size", "told", "answered", "needed", "closed", "failed", "heard_end")
    }
    work = (
        "excess_up", "excess_down", "keys_checked", "votes_checked", "paired", "delivered", "masked", "revealed",
        "survivors_opened", "orphans",
    )  # fmt: skip
    return Course(
        **arrays,
        in_sum=in_sum,
        lost_before=lost,
        unopened={
            shard: (rank * count + shard, secret, shares)
            for shard, session in enumerate(sessions)
            for rank, secret, shares in session.unopened.values()
        },
        graph_bytes={
            kind: sum(session.bytes_of(kind) for session in sessions) for kind in (SealedShares, Delivery, Unmask)
        },
        **{name: sum(getattr(session, name) for session in sessions) for name in work},
    )
