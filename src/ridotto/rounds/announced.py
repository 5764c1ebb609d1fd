"""What everybody checks who is told of a round, before anything else: signature, plan, and the session made of it."""

from __future__ import annotations

from ridotto.core.machine import COORDINATOR
from ridotto.core.vector import Layout
from ridotto.crypto.seal import verify
from ridotto.errors import PeerProtocolError, PlanError, ProtocolError
from ridotto.rounds.messages import ANNOUNCE_CONTEXT, Announce
from ridotto.rounds.noise import committee_sigma
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.rounds.protocol_settings import seal_of
from ridotto.secagg.committee_roles.drawn import drawn_roster
from ridotto.secagg.session import CommitteeSession, Member, Session


def check_announced(announce: Announce, sid: bytes, coordinator: bytes, layout: Layout | None) -> None:
    """Return if the coordinator signed this announcement and its session is one that the plan asks for.

    coordinator: its identity key, 32 bytes. layout: of the model, None where it is not known.
    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    plan, session = announce.plan, announce.session
    try:
        verify(coordinator, ANNOUNCE_CONTEXT, sid, announce.signature)
    except ProtocolError as error:
        raise _refuse("the announcement is not signed with the coordinator's key") from error
    if plan.fingerprint() != session.plan or session.protocol != plan.protocol_name:
        raise _refuse("the session was made for another plan than the one announced")
    if plan.dp is not None and plan.dp.noise_multiplier is None:
        raise _refuse("the plan has differential privacy and does not say how much noise")
    _check_parameters(plan, session, layout)


def check_tail(pipeline: Pipeline, session: Session) -> None:
    """Return if a session leaves out the lanes where no noise belongs, and has the plan's noise elsewhere.

    Raises PeerProtocolError if not.
    """
    if not isinstance(session, CommitteeSession):
        return
    if session.tail != pipeline.lanes.size:
        raise _refuse(f"the session has {session.tail} lanes, not {pipeline.lanes.size}")
    sigma = committee_sigma(pipeline.noise, pipeline.plan.dp)
    if session.sigma != sigma:
        raise _refuse(f"the session asks its committee for noise of {session.sigma:g}, and the plan for {sigma:g}")


def _check_parameters(plan: Plan, session: Session, layout: Layout | None) -> None:
    # The session repeats these so that it can be checked on its own; a plan that says otherwise is a lie.
    count, most = len(session.members), min(plan.cohort, plan.session_limit)
    if count > most:
        raise _refuse(f"the session has {count} members, the plan allows {most}")
    helpers: tuple[Member, ...] = ()
    seats = corrupt = 0
    if isinstance(session, CommitteeSession):
        helpers, seats, corrupt = session.helpers, session.committee, session.helpers_corrupt
        if session.seal != seal_of(plan):
            raise _refuse(f"the session has seals of kind {session.seal}, the plan asks for {seal_of(plan)}")
    if bool(helpers) != (plan.helpers is not None):
        raise _refuse("the plan and the session do not say the same about helpers")
    found = (session.bits, session.minimum, session.corrupt, (session.neighbours, session.threshold), seats, corrupt)
    asked = 0 if plan.helpers is None else plan.helpers.corrupt
    try:
        fitting = plan.bits, plan.least, plan.corrupt_of(count), plan.sparse(count), plan.seats(count, len(helpers))
        if isinstance(session, CommitteeSession):
            drawn_roster(session)
        if layout is not None:
            check_tail(Pipeline(plan, layout), session)
    except PlanError as error:
        raise _refuse(f"the plan allows no session of {count}: {error}") from error
    if isinstance(session, CommitteeSession) and bool(session.sigma) != (plan.dp is not None and plan.dp.seated):
        raise _refuse("the plan and the session do not say the same about noise of the committee")
    if found != (*fitting, asked):
        raise _refuse("the session's parameters are not the plan's")
    for helper in helpers:
        if plan.helpers is not None and not plan.helpers.named(helper):
            raise _refuse(f"{helper.name} with key {helper.key.hex()[:16]} is no helper that the plan names")


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
