"""What a data holder allows: checked on its own side before anything is trained, whatever the plan says."""

from __future__ import annotations

import msgspec

from ridotto.errors import ConsentError
from ridotto.rounds.plan import Plan, Risk
from ridotto.secagg.session import Session

PROTECTED = ("pairwise",)
"""Protocols that hide updates from the coordinator."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the floor below which a participant does not take part.

    protocols: that may be used. min_participants: fewest contributions behind an opened sum. min_corrupt: the
    fraction of members that must be allowed to collude without harm. roster: name -> identity key (hex) of
    everyone who may be in a session with me; None means whoever the coordinator enrolled. max_clip: largest clip
    that is accepted; None means that clipping is not asked for. i_know: risks taken knowingly; a plan that takes
    another is refused.
    """

    protocols: tuple[str, ...] = PROTECTED
    min_participants: int = 3
    min_corrupt: float = 0.05
    roster: dict[str, str] | None = None
    max_clip: float | None = None
    i_know: tuple[Risk, ...] = ()

    def check(self, plan: Plan, session: Session) -> None:
        """Refuse a round that this policy does not allow.

        Raises ConsentError with what was found, what is asked for and where to change it.
        """
        self._check_protection(plan, session)
        if session.minimum < self.min_participants:
            raise _refuse(f"a sum of {session.minimum} may be opened", f"min_participants = {self.min_participants}")
        if session.protocol in PROTECTED and session.corrupt < self.min_corrupt * len(session.members) - 1e-9:
            found = f"{session.corrupt} of {len(session.members)} members may collude safely"
            raise _refuse(found, f"min_corrupt = {self.min_corrupt}")
        if self.max_clip is not None and (plan.clip is None or plan.clip > self.max_clip):
            raise _refuse(f"updates are clipped at {plan.clip}", f"max_clip = {self.max_clip}")
        if self.roster is not None:
            self._check_roster(self.roster, session)

    def _check_protection(self, plan: Plan, session: Session) -> None:
        if session.protocol not in self.protocols:
            raise _refuse(f'the protocol is "{session.protocol}"', f"protocols = {list(self.protocols)}")
        for risk, sentence in plan.risks().items():
            if risk not in self.i_know:
                raise _refuse(f"the plan takes the risk {risk.value!r} ({sentence})", "i_know without it")

    def _check_roster(self, roster: dict[str, str], session: Session) -> None:
        for member in session.members:
            if roster.get(member.name) != member.key.hex():
                raise _refuse(
                    f"{member.name} with key {member.key.hex()[:16]} is in the session", "a roster without it"
                )


def _refuse(found: str, asked: str) -> ConsentError:
    return ConsentError(f"the participant's policy refuses this round: {found}; the policy has {asked}")
