"""What a round of `oneshot` would cost and whom it would lose, by counting: as `courses` does for other protocols.

Members with a seat on their session's committee send all the messages of `faults.SENT`, the others their contribution
only. Who has a seat is drawn from names and keys in the real protocol and from `seed` here, which is the same in
distribution; where a session has no more members than seats, all have one in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ridotto.core.wire import Message
from ridotto.crypto.lattice.packed_shamir import Sharing
from ridotto.errors import RoundFailedError
from ridotto.rounds.ciphers import shape_of
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.rounds.protocol_settings import seal_of
from ridotto.secagg.committee_roles.drawn import corrupt_seats
from ridotto.secagg.committee_roles.messages import (
    Ack,
    Acks,
    Checked,
    Included,
    MemberBook,
    MemberEntry,
    MemberKey,
    SeatVote,
)
from ridotto.secagg.committee_roles.seals import Seal, overhead_bytes, public_bytes
from ridotto.secagg.oneshot.drawn import pack_of
from ridotto.secagg.oneshot.messages import Contribution, Parcel, Parcels, Release
from ridotto.secagg.oneshot.setup import OneshotFailure
from ridotto.secagg.session import FailureCode
from ridotto.simulate.faults import SENT
from ridotto.simulate.message_sizes import header_bytes, index_excess

if TYPE_CHECKING:
    from ridotto.simulate.costs import UnitCosts

STAYS = len(SENT["oneshot"]) + 1
"""The stage of who does not leave: see `costs.stages`."""

_HASH, _SIGNATURE = bytes(32), bytes(64)

Mask = NDArray[np.bool_]


@dataclass
class OneshotCourse:
    """Count what happened in one session.

    Arrays are by member of the session: told, in_sum, lost_before as in `costs.ModelledRound`, and who was still there
    to be told of the end. closed: steps that enough answered. up, down: bytes, and spoken: messages, the announcement
    and the end of the round excluded. hybrid: whether parcels are sealed under ML-KEM as well. The rest is work:
    contributions made, keys of seats checked, parcels sealed and opened, signatures of seats made, acknowledgements
    checked.
    """

    hybrid: bool
    told: Mask
    in_sum: Mask
    heard_end: Mask
    lost_before: NDArray[np.int8]
    closed: int = 0
    failure: str = ""
    waited_s: float = 0.0
    up: int = 0
    down: int = 0
    spoken: int = 0
    made: int = 0
    keys_checked: int = 0
    sealed: int = 0
    opened: int = 0
    signed: int = 0
    votes_checked: int = 0

    @property
    def failed(self) -> bool:
        """Tell whether no sum was opened."""
        return bool(self.failure)


def oneshot_courses(
    plan: Plan, pipeline: Pipeline, stage: NDArray[np.int8], shards: int, seed: int
) -> Iterator[OneshotCourse]:
    """Count every session of a round. stage: 0 to 6, int8, shape (members,). seed: draws the committees."""
    for shard in range(shards):
        yield _session(plan, pipeline, stage[shard::shards], np.random.default_rng([seed, shard]))


def oneshot_cpu(course: OneshotCourse, pipeline: Pipeline, units: UnitCosts) -> tuple[float, float]:
    """Return CPU seconds of the coordinator and of all participants and seats of one session."""
    shape = shape_of(pipeline)
    told, wire = int(course.told.sum()), units.wire_s * (course.up + course.down - course.made * shape.size)
    folded = course.made * (units.fold_cipher_s * shape.coefficients + (units.hash_s + units.copy_s) * shape.size)
    coordinator = wire + folded + (units.verify_s + units.agree_s) * (course.made + course.signed)
    if not course.failed:
        coordinator += units.open_cipher_s * shape.coefficients + units.apply_s * pipeline.length
    participants = wire + units.verify_s * told + units.encode_s * pipeline.length * told
    participants += course.made * (
        units.key_s + units.encrypt_s * shape.coefficients + (2 * units.hash_s + units.copy_s) * shape.size
    )
    if course.hybrid:
        participants += units.encapsulate_s * course.sealed + units.decapsulate_s * course.opened
    participants += (
        units.sign_s * (course.made + course.signed)
        + units.verify_s * (course.keys_checked + course.votes_checked)
        + (units.agree_s + units.seal_s) * course.sealed
        + (units.verify_s + units.agree_s + units.seal_s + units.parcel_s) * course.opened
    )
    return coordinator, participants


def _session(plan: Plan, pipeline: Pipeline, stage: NDArray[np.int8], generator: np.random.Generator) -> OneshotCourse:
    members = len(stage)
    seats, corrupt = plan.seats(members), corrupt_seats(plan.corrupt_of(members))
    sharing = Sharing(seats, corrupt, pack_of(seats, corrupt))
    seated = np.zeros(members, np.bool_)
    seated[generator.choice(members, seats, replace=False)] = True
    # Who has no seat never comes to a seat's message, so it does not leave before one.
    stage = np.where(seated | (stage == 0) | (stage == 2), stage, STAYS)
    keys, made = seated & (stage > 1), stage > 2
    checked, acked, released = (keys & (stage > own) for own in (3, 4, 5))
    sent = [keys, made, checked, acked, released]
    expected = [seats, members, *(int(some.sum()) for some in (keys, checked, acked))]
    needed = [sharing.needed, plan.least, *[sharing.needed] * 3]
    answered = [int(some.sum()) for some in sent]
    closed = next((step for step in range(len(sent)) if answered[step] < needed[step]), len(sent))
    reached = range(min(closed, len(sent) - 1) + 1)
    course = OneshotCourse(
        hybrid=seal_of(plan) == "hybrid",
        told=stage > 0,
        in_sum=made,
        heard_end=_still_there(stage, seated, len(reached)),
        lost_before=np.where(made | (closed < 1), -1, 1).astype(np.int8),
        closed=closed,
        failure=_failure(closed, answered, needed),
        waited_s=sum(
            (plan.train_s if step == 1 else plan.phase_s) for step in reached if answered[step] < expected[step]
        ),
    )
    _count_bytes(course, sent, (stage > 1, seated), shape_of(pipeline).size, sharing, seal_of(plan))
    _count_work(course, answered, closed, sharing)
    return course


def _still_there(stage: NDArray[np.int8], seated: Mask, steps: int) -> Mask:
    """Return who had not left when so many steps had been waited for: who came to none of its messages is there."""
    gone = (stage == 0) | (seated & (stage == 1))
    for step in range(1, steps):
        gone |= stage == step + 1
    there: Mask = ~gone
    return there


def _failure(closed: int, answered: list[int], needed: list[int]) -> str:
    """Say why a session failed, as its machine does."""
    if closed == len(answered):
        return ""
    kind = SENT["oneshot"][closed]
    code = str(FailureCode.TOO_FEW if kind == Contribution.__name__ else OneshotFailure.COMMITTEE_SHORT)
    return str(RoundFailedError(code, f"{answered[closed]} sent {kind}, {needed[closed]} are needed"))


def _count_bytes(
    course: OneshotCourse, sent: list[Mask], who: tuple[Mask, Mask], vector: int, sharing: Sharing, seal: Seal
) -> None:
    """Add up what was said, step by step, until one was not closed. who: is there for the book, has a seat."""
    there, seated = who
    keys, made, checked, acked, released = sent
    k, n = int(keys.sum()), int(made.sum())
    # The place of a member in its session, and of a seat in its committee: both are sorted by name.
    seat_excess = index_excess(np.cumsum(seated) - 1)
    excess, book = index_excess(np.arange(len(seated))), int(seat_excess[keys].sum())
    share, public = sharing.share_bytes + overhead_bytes(seal), public_bytes(seal)
    ups = (
        k * _bytes(MemberKey, 0, public),
        n * (_bytes(Contribution, k, share, vector) + vector),
        int(checked.sum()) * _bytes(Checked),
        int(acked.sum()) * _bytes(Ack),
        int(released.sum()) * _bytes(Release, 0, sharing.share_bytes),
    )
    heard = (int(there.sum()), int((keys & made).sum()), int(checked.sum()), int(acked.sum()))
    listed = int(excess[made].sum())
    downs = (
        heard[0] * (_bytes(MemberBook, k, public) + book),
        heard[1] * (_bytes(Parcels, n, share) + listed),
        heard[2] * (_bytes(Included, n) + listed),
        heard[3] * (_bytes(Acks, int(acked.sum())) + int(seat_excess[acked].sum())),
    )
    course.up = sum(ups[: course.closed + 1])
    course.down = sum(downs[: course.closed])
    course.spoken = sum(int(some.sum()) for some in sent[: course.closed + 1]) + sum(heard[: course.closed])


def _count_work(course: OneshotCourse, answered: list[int], closed: int, sharing: Sharing) -> None:
    k, n, _, acked, released = answered
    course.signed = k + acked * (closed >= 3) + released * (closed >= 4)
    if closed >= 1:
        course.made, course.sealed = n, n * k
        course.keys_checked = k * (n + k)
    course.opened = n * k if closed >= 2 else 0
    course.votes_checked = acked * sharing.needed if closed >= 4 else 0


@lru_cache(maxsize=4096)
def _bytes(kind: type[Message], count: int = 0, share: int = 0, vector: int = 0) -> int:
    """Return the size of a message's header whose list has `count` elements, its indices zero.

    share: bytes of a share, or of a sealed one, or of a member's key. vector: of the attachment.
    """
    built: dict[type[Message], Callable[[], Message]] = {
        MemberKey: lambda: MemberKey(_HASH, bytes(share), _SIGNATURE),
        MemberBook: lambda: MemberBook(_HASH, (MemberEntry(0, bytes(share), _SIGNATURE),) * count),
        Contribution: lambda: Contribution(_HASH, vector, _HASH, _HASH, _HASH, _SIGNATURE, (bytes(share),) * count),
        Parcels: lambda: Parcels(_HASH, (Parcel(0, _HASH, _HASH, _SIGNATURE, bytes(share)),) * count),
        Checked: lambda: Checked(_HASH, ()),
        Included: lambda: Included(_HASH, (0,) * count),
        Ack: lambda: Ack(_HASH, _HASH, _SIGNATURE),
        Acks: lambda: Acks(_HASH, (SeatVote(0, _SIGNATURE),) * count),
        Release: lambda: Release(_HASH, _HASH, bytes(share), _SIGNATURE),
    }
    return header_bytes(built[kind]())
