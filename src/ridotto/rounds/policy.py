"""What a data holder allows: checked on its own side before anything is trained, whatever the plan says."""

from __future__ import annotations

import math

import msgspec

from ridotto.errors import ConfigError, ConsentError, LocalProtocolError
from ridotto.rounds.plan import Plan, Risk
from ridotto.rounds.protocol_settings import seal_of
from ridotto.rounds.spending import Spending
from ridotto.secagg.committee_roles.seals import Seal, require_seal
from ridotto.secagg.session import CommitteeSession, Session

PROTECTED = ("pairwise", "oneshot", "committee")
"""Protocols that hide updates from the coordinator."""


NOISES = ("any", "distributed", "local")
"""What `Policy.noise` may ask for: some noise; noise that participants add; so much that mine alone is enough."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the floor below which a participant does not take part.

    protocols: that may be used. min_participants: fewest contributions behind an opened sum. min_corrupt: the
    fraction of members that must be allowed to collude without harm. roster: name -> identity key (hex) of
    everyone who may be in a session with me; None means whoever the coordinator enrolled. helpers: the same of the
    helpers that I trust: of those who may serve on a committee, no more may be strangers than the plan allows to be
    corrupt; None means whoever the plan names. max_clip: largest clip that is accepted; None means that clipping is not
    asked for. i_know: risks taken knowingly; a plan that takes another is refused. seal: "hybrid" refuses a plan
    without it, as what is sealed under X25519 alone a quantum computer opens; None means that this is not asked for.

    Differential privacy is asked for by any of: noise, one of `NOISES`; with "distributed" nobody has to trust the
    coordinator to add it (where helpers do, `helpers` says that they are not the coordinator's own), with "local"
    nobody else at all. min_noise_multiplier: least deviation of the noise on a sum over the clip. max_delta: largest
    delta of a plan. max_epsilon: what all rounds together may cost me, by my own count (`Spending`) at max_delta.

    Raises ConfigError for a number out of range, or max_epsilon without max_delta: an epsilon means nothing without.
    """

    protocols: tuple[str, ...] = PROTECTED
    min_participants: int = 3
    min_corrupt: float = 0.05
    roster: dict[str, str] | None = None
    helpers: dict[str, str] | None = None
    max_clip: float | None = None
    i_know: tuple[Risk, ...] = ()
    noise: str | None = None
    min_noise_multiplier: float | None = None
    max_delta: float | None = None
    max_epsilon: float | None = None
    seal: str | None = None

    def __post_init__(self) -> None:
        if self.noise not in (None, *NOISES):
            raise ConfigError(f"noise is {self.noise!r}, expected one of {', '.join(NOISES)}")
        if self.seal not in (None, "hybrid"):
            raise ConfigError(f'seal is {self.seal!r}, expected "hybrid" or nothing')
        for name in ("min_noise_multiplier", "max_epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}, expected a finite number above 0")
        if self.max_delta is not None and not 0 < self.max_delta < 1:
            raise ConfigError(f"max_delta is {self.max_delta}, expected a probability above 0 and below 1")
        if self.max_epsilon is not None and self.max_delta is None:
            raise ConfigError(
                f"max_epsilon is {self.max_epsilon} and max_delta is missing: say at which delta epsilon is counted"
            )

    @property
    def wants_noise(self) -> bool:
        """Say whether plans without differential privacy are refused."""
        return any(limit is not None for limit in self._noise_limits.values())

    @property
    def _noise_limits(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("noise", "min_noise_multiplier", "max_delta", "max_epsilon")}

    def check(self, plan: Plan, session: Session, spending: Spending | None = None) -> None:
        """Refuse a round that this policy does not allow.

        spending: what my rounds so far have cost; needed where max_epsilon is given.
        Raises ConsentError with what was found, what is asked for and where to change it.
        """
        self._check_protection(plan, session)
        if self.wants_noise:
            self._check_noise(plan)
        if self.max_epsilon is not None:
            self._check_epsilon(plan, self.max_epsilon, spending)
        self._check_members(session)
        if self.max_clip is not None and (plan.clip_norm is None or plan.clip_norm > self.max_clip):
            raise _refuse(f"updates are clipped at {plan.clip_norm}", f"max_clip = {self.max_clip}")

    def check_session(self, plan: Plan, session: Session) -> None:
        """Refuse a session that this policy does not allow, whoever's updates are summed in it: what a helper checks.

        Raises ConsentError as `check` does.
        """
        self._check_protection(plan, session)
        self._check_members(session)

    def _check_members(self, session: Session) -> None:
        if session.minimum < self.min_participants:
            raise _refuse(f"a sum of {session.minimum} may be opened", f"min_participants = {self.min_participants}")
        if session.protocol in PROTECTED and session.corrupt < self.min_corrupt * len(session.members) - 1e-9:
            found = f"{session.corrupt} of {len(session.members)} members may collude safely"
            raise _refuse(found, f"min_corrupt = {self.min_corrupt}")
        if self.helpers is not None and isinstance(session, CommitteeSession):
            self._check_helpers(self.helpers, session)
        if self.roster is not None:
            self._check_roster(self.roster, session)

    def _check_protection(self, plan: Plan, session: Session) -> None:
        if session.protocol not in self.protocols:
            raise _refuse(f'the protocol is "{session.protocol}"', f"protocols = {list(self.protocols)}")
        for risk, sentence in plan.risks().items():
            if risk not in self.i_know:
                raise _refuse(f"the plan takes the risk {risk.value!r} ({sentence})", "i_know without it")
        self._check_seal(seal_of(plan))

    def _check_seal(self, found: Seal) -> None:
        if self.seal is not None and found != self.seal:
            raise _refuse("the plan seals nothing under ML-KEM", f'seal = "{self.seal}"')
        try:
            require_seal(found)
        except ConfigError as error:
            raise ConsentError(f'the plan has seal = "{found}": {error}') from error

    def _check_noise(self, plan: Plan) -> None:
        dp = plan.dp
        if dp is None:
            words = ", ".join(f"{name} = {_toml(limit)}" for name, limit in self._noise_limits.items() if limit)
            raise _refuse("the plan has no differential privacy", words)
        if self.noise in ("distributed", "local") and dp.central:
            raise _refuse("the coordinator adds the noise and sees the exact sums", f'noise = "{self.noise}"')
        if self.noise == "local" and not dp.local:
            raise _refuse("what I send is private only together with what others add", 'noise = "local"')
        least, found = self.min_noise_multiplier, dp.multiplier
        if least is not None and found < least:
            raise _refuse(f"the noise multiplier is {found:g}", f"min_noise_multiplier = {least:g}")
        if self.max_delta is not None and dp.delta > self.max_delta:
            raise _refuse(f"delta is {dp.delta:g}", f"max_delta = {self.max_delta:g}")

    def _check_epsilon(self, plan: Plan, limit: float, spending: Spending | None) -> None:
        """Refuse a plan that means to spend more than the limit, and a round that would take my own count over it."""
        if spending is None or plan.dp is None or self.max_delta is None:
            raise LocalProtocolError("a policy with max_epsilon was asked without what was spent so far")
        if plan.dp.epsilon is not None and plan.dp.epsilon > limit:
            raise _refuse(f"the plan may spend epsilon {plan.dp.epsilon:g} in all", f"max_epsilon = {limit:g}")
        after = spending.after(spending.event(plan)).epsilon(self.max_delta)
        # Not "after > limit": whatever can't be compared is over the limit.
        if not after <= limit:
            found = f"after {spending.rounds} rounds, one more makes epsilon {after:.4g} at delta {self.max_delta:g}"
            raise _refuse(f"{found} by my own count", f"max_epsilon = {limit:g}")

    def _check_roster(self, roster: dict[str, str], session: Session) -> None:
        for member in session.members:
            if roster.get(member.name) != member.key.hex():
                raise _refuse(
                    f"{member.name} with key {member.key.hex()[:16]} is in the session", "a roster without it"
                )

    def _check_helpers(self, known: dict[str, str], session: CommitteeSession) -> None:
        strangers = [helper for helper in session.helpers if known.get(helper.name) != helper.key.hex()]
        if len(strangers) > session.helpers_corrupt:
            found = f"{len(strangers)} of {len(session.helpers)} helpers are strangers, {strangers[0].name} among them"
            raise _refuse(f"{found}, and {session.helpers_corrupt} may be corrupt", "helpers without them")


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def _refuse(found: str, asked: str) -> ConsentError:
    return ConsentError(f"the participant's policy refuses this round: {found}; the policy has {asked}")
