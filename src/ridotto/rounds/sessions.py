"""What one attempt at a round is about, and the sessions that its cohort is cut into."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ridotto.core.vector import Field, Layout
from ridotto.core.wire import digest
from ridotto.errors import PlanError, RoundFailedError
from ridotto.learn.robust.groups import group_of
from ridotto.rounds.noise import committee_sigma
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.rounds.protocol_settings import seal_of
from ridotto.secagg.session import CommitteeSession, Member, Session


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say what one attempt at a round is about. A driver stores it, to build the round's machine again after a kill.

    number: of the round. attempt: counts every try of the federation. model: SHA-256 of the model file.
    parameters: d. nonce: 32 fresh random bytes; deals sessions, draws committees and seeds compression. members: the
    cohort. shapes: of the model's parameters, for plans whose vectors' length depends on them. helpers: who is there to
    serve on committees, for plans that ask for helpers.
    """

    plan: Plan
    number: int
    attempt: int
    model: bytes
    parameters: int
    nonce: bytes
    members: tuple[Member, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    helpers: tuple[Member, ...] = ()

    @property
    def size(self) -> int | Layout:
        """Return d, or a layout with these shapes."""
        fields = tuple(Field(str(place), shape, "float32") for place, shape in enumerate(self.shapes))
        return Layout(fields) if fields else self.parameters


def make_sessions(attempt: Attempt) -> list[Session]:
    """Cut a cohort into sessions of nearly equal size, each large enough for the plan's minimum.

    Raises RoundFailedError if the cohort is too small for one, or for the sparse graph or committee of the plan, or the
    helpers are too few.
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
            seats = plan.seats(len(members), len(attempt.helpers))
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
            attempt=attempt.attempt,
        )
        sessions.append(with_committee(session, seats, pipeline, attempt.helpers) if seats else session)
    return sessions


def with_committee(
    session: Session, seats: int, pipeline: Pipeline, helpers: Iterable[Member] = ()
) -> CommitteeSession:
    """Return a session with a committee of so many seats. helpers: for plans that ask for them."""
    values = {name: getattr(session, name) for name in Session.__struct_fields__}
    asked = pipeline.plan.helpers
    if asked is not None:
        values["helpers"] = tuple(sorted(helpers, key=lambda helper: helper.name))
        values["helpers_corrupt"] = asked.corrupt
    sigma, seal = committee_sigma(pipeline.noise, pipeline.plan.dp), seal_of(pipeline.plan)
    return CommitteeSession(**values, committee=seats, tail=pipeline.lanes.size, sigma=sigma, seal=seal)


def hashed(members: Iterable[Member], nonce: bytes) -> tuple[Member, ...]:
    """Return a cohort in the order in which a coordinator lists it: sessions are dealt by it, one member after another.

    Whoever chooses its own name chooses neither its session nor who else is in it.
    """
    return tuple(sorted(members, key=lambda member: digest(b"ridotto/1 shards\x00" + nonce + member.key)))


def dealt_to(attempt: Attempt, sessions: int) -> list[list[Member]]:
    """Return the members of each session: in turn, or at random by the nonce where a robust rule counts sessions."""
    members = attempt.members
    if attempt.plan.robust is None or attempt.plan.individual:
        return [list(members[shard::sessions]) for shard in range(sessions)]
    group = group_of([member.name for member in members], attempt.nonce, sessions)
    return [[member for member in members if group[member.name] == shard] for shard in range(sessions)]
