"""The coordinator's book: who is heard, in which step, and who is lost. Protocols test it with real messages."""

from __future__ import annotations

import pytest

from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee_roles.messages import Acks, Checked, Included, MemberKey
from ridotto.secagg.committee_roles.steps import Heard, Steps
from tests.secagg.oneshot.world import make_setup

SETUP = make_setup(3, committee=4, corrupt=1, pack=1)
SID = SETUP.sid
KINDS = (MemberKey, Included, Checked)


def make_steps() -> Steps:
    """Members send keys, participants a message (any kind will do), members another."""
    return Steps(SETUP.session, SETUP.roster, SID, KINDS, Included)


def key(byte: int) -> MemberKey:
    return MemberKey(SID, bytes([byte]) * 32, bytes(64))


def test_messages_are_new_again_or_other() -> None:
    steps = make_steps()
    assert steps.hear("m001", key(1)) == (1, Heard.NEW)
    steps.keep(1, key(1))
    assert steps.hear("m001", key(1)) == (1, Heard.AGAIN)
    assert steps.hear("m001", key(2)) == (1, Heard.OTHER)
    steps.begin({0, 1, 2})
    assert steps.hear("m001", key(1)) == (1, Heard.AGAIN)
    assert steps.hear("m001", key(2)) == (1, Heard.OTHER)


@pytest.mark.parametrize(
    ("sender", "message", "why"),
    [
        ("m000", Acks(SID, ()), "takes no Acks"),
        ("p000", key(1), "no committee member"),
        ("m000", Included(SID, ()), "no participant"),
        ("m000", MemberKey(b"x" * 32, b"k" * 32, bytes(64)), "another session"),
        ("p000", Included(SID, ()), "too early"),
        ("m003", key(1), "too late"),
    ],
)
def test_who_is_not_expected_is_refused(sender: str, message: object, why: str) -> None:
    steps = make_steps()
    steps.leave("m003", "battery")
    with pytest.raises(PeerProtocolError, match=why):
        steps.hear(sender, message)


def test_who_is_silent_is_at_fault_or_lost() -> None:
    steps = make_steps()
    for seat in (0, 2):
        steps.keep(seat, key(seat))
    assert not steps.complete
    assert steps.progress("Open").waiting == ("m001", "m003")
    assert steps.close() == [0, 2]
    assert steps.faults == {1: "sent no MemberKey", 3: "sent no MemberKey"}
    steps.begin({0, 1, 2})
    steps.keep(1, Included(SID, ()))
    assert steps.progress("Open").step == "Included"
    assert steps.close() == [1]
    assert steps.lost == {0: "sent no Included", 2: "sent no Included"}


def test_who_leaves_is_not_waited_for() -> None:
    steps = make_steps()
    assert steps.leave("m002", "battery")
    assert not steps.leave("m002", "again")
    assert not steps.leave("p001", "policy")
    assert (steps.faults, steps.lost) == ({2: "battery"}, {1: "policy"})
    with pytest.raises(PeerProtocolError, match="no part"):
        steps.leave("stranger", "")
    for seat in (0, 1, 3):
        steps.keep(seat, key(seat))
    assert steps.complete
    steps.stop()
    assert (steps.complete, steps.close(), steps.progress("Open").step) == (False, [], "Open")
    assert not steps.leave("p000", "late")
