"""Announcements, declines and ends: what each half of a round refuses, and with which sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ridotto.core.machine import COORDINATOR, SELF, Do, Finish, Send
from ridotto.errors import ConsentError, LocalProtocolError, PeerProtocolError, RoundFailedError
from ridotto.privacy.event import Repeated
from ridotto.rounds.messages import (
    ANNOUNCE_CONTEXT,
    Announce,
    Applied,
    Closed,
    Decline,
    NotApplied,
    NotTrained,
    Train,
)
from ridotto.rounds.plan import Committee, DistributedGaussian, Oneshot, Pairwise, Plan
from ridotto.rounds.round import Attempt, make_sessions
from ridotto.rounds.spending import Spending
from ridotto.secagg.committee_roles.tasks import Encapsulated
from ridotto.secagg.messages import KeyBook
from ridotto.secagg.session import Session, session_id
from tests.conformance.world import identity
from tests.rounds.federation import (
    ANYTHING,
    LAYOUT,
    Federation,
    make_plan,
    members_of,
    names,
)

# --- what a participant refuses ---------------------------------------------------------------------------------


def announcement(federation: Federation) -> Announce:
    federation.begin()
    [announce] = [
        effect.message
        for effect in federation.coordinator().start(0.0)
        if isinstance(effect, Send) and effect.to == "p000" and isinstance(effect.message, Announce)
    ]
    return announce


def signed(plan: Plan, session: Session) -> Announce:
    return Announce(plan, session, identity(COORDINATOR).sign(ANNOUNCE_CONTEXT, session_id(session)))


def replaced(announce: Announce, **changes: object) -> Announce:
    """Change the session and sign it again: the coordinator itself lies."""
    return signed(announce.plan, msgspec.structs.replace(announce.session, **changes))


def private_plan(**noise: float | None) -> Plan:
    dp = DistributedGaussian(delta=1e-6, **noise)  # type: ignore[arg-type]
    return make_plan(clip=1.0, max_examples=1, metrics={}, dp=dp)


def announced_with(announce: Announce, plan: Plan) -> Announce:
    return signed(plan, msgspec.structs.replace(announce.session, plan=plan.fingerprint()))


LIES: dict[str, tuple[Callable[[Announce], Announce], str]] = {
    "signature": (lambda a: msgspec.structs.replace(a, signature=b"s" * 64), "not signed with the coordinator's key"),
    "session after signing": (
        lambda a: msgspec.structs.replace(a, session=msgspec.structs.replace(a.session, model=b"M" * 32)),
        "not signed with the coordinator's key",
    ),
    "plan": (lambda a: msgspec.structs.replace(a, plan=make_plan(clip=1.0)), "made for another plan"),
    "plan hash": (lambda a: replaced(a, plan=b"P" * 32), "made for another plan"),
    "protocol": (lambda a: replaced(a, protocol="ideal"), "made for another plan"),
    "bits": (lambda a: replaced(a, bits=16), "the session's parameters are not the plan's"),
    "minimum": (lambda a: replaced(a, minimum=2), "the session's parameters are not the plan's"),
    "corrupt": (lambda a: replaced(a, corrupt=1), "the session's parameters are not the plan's"),
    "graph": (lambda a: replaced(a, neighbours=2, threshold=2), "the session's parameters are not the plan's"),
    "roster without me": (
        lambda a: replaced(a, members=a.session.members[1:]),
        "the session's roster does not have me with my key",
    ),
    "another key for me": (
        lambda a: replaced(
            a, members=(msgspec.structs.replace(a.session.members[0], key=b"k" * 32), *a.session.members[1:])
        ),
        "the session's roster does not have me with my key",
    ),
    "more members than the plan allows": (
        lambda a: replaced(a, members=members_of(names(6))),
        "the session has 6 members, the plan allows 5",
    ),
    "noise of an unknown size": (
        lambda a: announced_with(a, private_plan(noise_multiplier=None, epsilon=4.0)),
        "the plan has differential privacy and does not say how much noise",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_refuses_an_announcement_that_does_not_hold(lie: str) -> None:
    federation = Federation(make_plan())
    change, why = LIES[lie]
    announce = announcement(federation)
    machine = federation.participant("p000")
    with pytest.raises(PeerProtocolError, match=why):
        machine.receive(COORDINATOR, change(announce), 0.0)
    # A refusal leaves the machine as it was.
    assert machine.receive(COORDINATOR, announce, 0.0) == [Do(Train(announce.session.model, 1))]


@pytest.mark.parametrize("protocol", [Oneshot, Committee])
@pytest.mark.parametrize(("planned", "told"), [("hybrid", "x25519"), ("x25519", "hybrid")])
def test_refuses_a_session_with_other_seals_than_the_plan_asks_for(protocol: Any, planned: str, told: str) -> None:
    """The coordinator itself lies: it would like to have parcels that it can open when X25519 is broken."""
    federation = Federation(make_plan(6, protocol=protocol(seal=planned)))
    announce = announcement(federation)
    machines = [federation.participant("p000")]
    machines += [federation.helper(helper.name) for helper in federation.attempt.helpers]
    for machine in machines:
        with pytest.raises(PeerProtocolError, match=f"seals of kind {told}, the plan asks for {planned}"):
            machine.receive(COORDINATOR, replaced(announce, seal=told), 0.0)


def test_refuses_a_session_for_which_the_plan_has_no_graph() -> None:
    """`Plan.sparse` raises PlanError for so few; out of `receive` comes a refusal."""
    plan = make_plan(200, minimum=4, protocol="pairwise")
    plan = msgspec.structs.replace(plan, protocol=Pairwise(graph="sparse", corrupt=0.005))
    session = msgspec.structs.replace(
        make_sessions(attempt_of(make_plan(4, protocol="pairwise")))[0],
        plan=plan.fingerprint(),
        minimum=4,
        corrupt=1,
    )
    federation = Federation(make_plan())
    federation.begin()
    with pytest.raises(PeerProtocolError, match="the plan allows no session of 4: no sparse graph"):
        federation.participant("p000").receive(COORDINATOR, signed(plan, session), 0.0)


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (private_plan(noise_multiplier=1.0), "the noise multiplier is 1; the policy has min_noise_multiplier = 2"),
        (private_plan(noise_multiplier=4.0, epsilon=8.0), "the plan may spend epsilon 8 in all"),
        (private_plan(noise_multiplier=4.0), r"after 19 rounds, one more makes epsilon [\d.]+ at delta 1e-06"),
        (make_plan(), "the plan has no differential privacy"),
    ],
)
def test_a_plan_below_my_privacy_floor_is_declined_before_anything_is_trained(plan: Plan, why: str) -> None:
    policy = msgspec.structs.replace(ANYTHING, min_noise_multiplier=2.0, max_epsilon=4.0, max_delta=1e-6)
    event = Spending(LAYOUT.length).event(private_plan(noise_multiplier=4.0))
    spending = Spending(LAYOUT.length, (Repeated(event, 19),))
    federation = Federation(plan)
    machine = federation.participant("p000", policy=policy, spending=spending)
    decline, end = machine.receive(COORDINATOR, announcement(federation), 0.0)
    assert isinstance(decline, Send)
    assert isinstance(decline.message, Decline)
    assert isinstance(end, Finish)
    assert isinstance(end.error, ConsentError)
    with pytest.raises(ConsentError, match=why):
        raise end.error


def test_a_plan_that_does_not_fit_the_model_is_refused_before_anything_is_trained() -> None:
    """What depends on the model could not be checked before: here, noise that the ring has no room for."""
    federation = Federation(make_plan())
    dp = DistributedGaussian(noise_multiplier=900.0, delta=1e-6)
    plan = msgspec.structs.replace(private_plan(noise_multiplier=1.0), dp=dp)
    msgspec.structs.force_setattr(plan, "bits", 8)
    machine = federation.participant("p000", layout=LAYOUT)
    with pytest.raises(PeerProtocolError, match="the plan allows no session of 5"):
        machine.receive(COORDINATOR, announced_with(announcement(federation), plan), 0.0)


def attempt_of(plan: Plan) -> Attempt:
    federation = Federation(plan)
    federation.begin()
    assert federation.attempt is not None
    return federation.attempt


def test_another_coordinators_announcement_is_refused() -> None:
    federation = Federation(make_plan())
    machine = federation.participant("p000", coordinator=identity("other").public)
    with pytest.raises(PeerProtocolError, match="not signed with the coordinator's key"):
        machine.receive(COORDINATOR, announcement(federation), 0.0)


def test_one_session_per_attempt() -> None:
    federation = Federation(make_plan())
    announce = announcement(federation)
    machine = federation.participant("p000")
    machine.receive(COORDINATOR, announce, 0.0)
    with pytest.raises(PeerProtocolError, match="announced a second session in one round"):
        machine.receive(COORDINATOR, announce, 0.0)


def test_nothing_of_the_sum_is_answered_before_there_is_an_update() -> None:
    federation = Federation(make_plan())
    machine = federation.participant("p000")
    machine.receive(COORDINATOR, announcement(federation), 0.0)
    with pytest.raises(PeerProtocolError, match="KeyBook came before there was an update"):
        machine.receive(COORDINATOR, KeyBook(b"s" * 32, ()), 0.0)


def test_only_the_coordinator_speaks_to_a_participant() -> None:
    federation = Federation(make_plan())
    announce = announcement(federation)
    for sender in ("p001", SELF):
        with pytest.raises(PeerProtocolError, match="only the coordinator speaks to a participant"):
            federation.participant("p000").receive(sender, announce, 0.0)


def test_refuses_the_end_of_another_session_and_takes_its_own() -> None:
    federation = Federation(make_plan())
    announce = announcement(federation)
    machine = federation.participant("p000")
    with pytest.raises(PeerProtocolError, match="it closed another session"):
        machine.receive(COORDINATOR, Closed(session_id(announce.session), b"m" * 32), 0.0)
    machine.receive(COORDINATOR, announce, 0.0)
    with pytest.raises(PeerProtocolError, match="it closed another session"):
        machine.receive(COORDINATOR, Closed(b"x" * 32, b"m" * 32), 0.0)
    closed = Closed(session_id(announce.session), b"m" * 32, "enough")
    assert machine.receive(COORDINATOR, closed, 0.0) == [Finish(closed)]


def test_secrets_that_nobody_asked_for_are_our_own_mistake() -> None:
    federation = Federation(make_plan(6, protocol=Oneshot(seal="hybrid")))
    announce, machine = announcement(federation), federation.participant("p000")
    answer = Encapsulated(session_id(announce.session), b"r" * 32, ())
    with pytest.raises(LocalProtocolError, match="nobody asked for"):
        machine.receive(SELF, answer, 0.0)
    machine.receive(COORDINATOR, announce, 0.0)
    with pytest.raises(LocalProtocolError, match="before there was an update"):
        machine.receive(SELF, answer, 0.0)
    machine.receive(SELF, federation.trained("p000"), 0.0)
    with pytest.raises(LocalProtocolError, match="nobody asked for"):
        machine.receive(SELF, answer, 0.0)
    with pytest.raises(PeerProtocolError):
        machine.receive(COORDINATOR, answer, 0.0)


def test_an_update_that_nobody_asked_for_is_our_own_mistake() -> None:
    federation = Federation(make_plan())
    for message in (NotTrained("x"), federation.trained("p000")):
        with pytest.raises(LocalProtocolError, match="an update came that nobody asked for"):
            federation.participant("p000").receive(SELF, message, 0.0)


# --- what a coordinator refuses ---------------------------------------------------------------------------------


def test_the_coordinator_refuses_strangers_and_declines_of_other_sessions() -> None:
    federation = Federation(make_plan())
    federation.begin()
    machine = federation.coordinator()
    machine.start(0.0)
    with pytest.raises(PeerProtocolError, match="mallory: is not in this round's cohort"):
        machine.receive("mallory", Decline(b"s" * 32, ""), 0.0)
    with pytest.raises(PeerProtocolError, match="p000: its Decline belongs to another session"):
        machine.receive("p000", Decline(b"s" * 32, ""), 0.0)
    for message in (Applied(b"m" * 32, 1, 1, 0, {}), NotApplied(""), Closed(b"s" * 32, b"m" * 32)):
        with pytest.raises(PeerProtocolError, match="a participant does not send"):
            machine.receive("p000", message, 0.0)


def test_an_answer_to_no_task_is_our_own_mistake() -> None:
    federation = Federation(make_plan())
    federation.begin()
    with pytest.raises(LocalProtocolError, match="Closed is not the result of a task"):
        federation.coordinator().receive(SELF, Closed(b"s" * 32, b"m" * 32), 0.0)


def test_a_cohort_that_is_too_small_is_refused() -> None:
    federation = Federation(make_plan(5))
    federation.begin(names(2))
    with pytest.raises(RoundFailedError, match="TOO_FEW: 2 participants are there, a session needs 3"):
        federation.coordinator()
    empty = msgspec.structs.replace(federation.attempt, members=())
    with pytest.raises(RoundFailedError, match="0 participants are there"):
        make_sessions(empty)
