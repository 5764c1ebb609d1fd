"""What one attempt at a round is about, and the sessions that its cohort is cut into."""

from __future__ import annotations

import msgspec

from ridotto.core.vector import Field, Layout
from ridotto.errors import PlanError, RoundFailedError
from ridotto.learn.robust.groups import group_of
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.secagg.session import CommitteeSession, Member, Session


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say what one attempt at a round is about. A driver stores it, to build the round's machine again after a kill.

    number: of the round. attempt: counts every try of the federation. model: SHA-256 of the model file.
    parameters: d. nonce: 32 fresh random bytes; deals groups and seeds compression. members: the cohort. shapes: of the
    model's parameters, for plans whose vectors' length depends on them.
    """

    plan: Plan
    number: int
    attempt: int
    model: bytes
    parameters: int
    nonce: bytes
    members: tuple[Member, ...]
    shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def size(self) -> int | Layout:
        """Return d, or a layout with these shapes."""
        fields = tuple(Field(str(place), shape, "float32") for place, shape in enumerate(self.shapes))
        return Layout(fields) if fields else self.parameters


def make_sessions(attempt: Attempt) -> list[Session]:
    """Cut a cohort into sessions of nearly equal size, each large enough for the plan's minimum.

    Raises RoundFailedError if the cohort is too small for one, or for the sparse graph or committee of the plan.
    """
    plan, count = attempt.plan, len(attempt.members)
    shards = max(1, plan.sessions_of(count))
    if count // shards < plan.least or count < plan.quorum:
        raise RoundFailedError("TOO_FEW", f"{count} participants are there, a session needs {plan.least}")
    sessions, pipeline = [], Pipeline(plan, attempt.size)
    for shard, dealt in enumerate(dealt_to(attempt, shards)):
        members = tuple(sorted(dealt, key=lambda member: member.name))
        try:
            neighbours, threshold = plan.sparse(len(members))
            seats = plan.seats(len(members))
        except PlanError as error:
            raise RoundFailedError("TOO_FEW", str(error)) from error
        session = Session(
            protocol=plan.protocol_name,
            plan=plan.fingerprint(),
            model=attempt.model,
            nonce=attempt.nonce,
            round=attempt.number,
            shard=shard,
            members=members,
            length=pipeline.length,
            bits=plan.bits,
            minimum=plan.least,
            corrupt=plan.corrupt_of(len(members)),
            neighbours=neighbours,
            threshold=threshold,
        )
        sessions.append(with_committee(session, seats, pipeline) if seats else session)
    return sessions


def with_committee(session: Session, seats: int, pipeline: Pipeline) -> CommitteeSession:
    """Return a session with a committee of so many seats."""
    values = {name: getattr(session, name) for name in Session.__struct_fields__}
    return CommitteeSession(**values, committee=seats, tail=pipeline.lanes.size)


def dealt_to(attempt: Attempt, sessions: int) -> list[list[Member]]:
    """Return the members of each session: in turn, or at random by the nonce where a robust rule counts sessions."""
    members = attempt.members
    if attempt.plan.robust is None or attempt.plan.individual:
        return [list(members[shard::sessions]) for shard in range(sessions)]
    group = group_of([member.name for member in members], attempt.nonce, sessions)
    return [[member for member in members if group[member.name] == shard] for shard in range(sessions)]
