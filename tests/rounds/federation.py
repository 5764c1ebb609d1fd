"""A bench for rounds: both halves of `rounds.round`, a vault, and a network that tests may attack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ridotto.core.machine import COORDINATOR, Buffer, Envelope, Finish, Machine, Router
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.vector import Field, Layout, Vector
from ridotto.core.wire import Codec, Message
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.messages import Apply, Discard, Merge, NotTrained, Train, Trained, messages_of_all
from ridotto.rounds.noise import add_committee_noise
from ridotto.rounds.plan import Committee, Ideal, Oneshot, Pairwise, Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.round import Attempt, CoordinatorRound, ParticipantRound
from ridotto.rounds.vault import Vault
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate, Settle
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import Member
from ridotto.secagg.tasks import Fold, Open
from tests.conformance.world import identity

LAYOUT = Layout((Field("weight", (2, 2), "float32"), Field("bias", (1,), "float32")))
ANYTHING = Policy(protocols=tuple(PROTOCOLS), min_participants=1, min_corrupt=0.0, i_know=tuple(Risk))
PAIRWISE = Pairwise(corrupt=0.0)


PROTOCOLS_BY_NAME: dict[Any, Any] = {
    "pairwise": PAIRWISE,
    "ideal": Ideal(),
    "oneshot": Oneshot(),
    "committee": Committee(),
}


def make_plan(cohort: int = 5, protocol: Any = "pairwise", **changes: Any) -> Plan:
    chosen = PROTOCOLS_BY_NAME[protocol] if isinstance(protocol, str) else protocol
    settings = {"protocol": chosen, "i_know": tuple(Risk), "minimum": 3}
    return Plan(**({"cohort": cohort, "metrics": {"loss": 10.0}, "phase_s": 10.0} | settings | changes))


def update_of(index: int) -> Vector:
    """Give participant `index` an update that fixed point holds exactly: multiples of 1/8."""
    return (np.arange(1, 6, dtype=np.float32) - 3) * np.float32(0.125 * (index + 1))


def examples_of(index: int) -> int:
    return 10 * (index + 1)


def loss_of(index: int) -> float:
    return 0.5 * index


def names(count: int) -> tuple[str, ...]:
    return tuple(f"p{i:03}" for i in range(count))


def members_of(cohort: Iterable[str]) -> tuple[Member, ...]:
    return tuple(Member(name, identity(name).public) for name in cohort)


@dataclass
class Federation:
    """Run attempts at rounds. tamper: sees and changes every envelope. untrained: name -> why it has no update.

    updates: other updates than `update_of`. policies: other policies than one that allows everything.
    """

    plan: Plan
    tamper: Callable[[Envelope], Iterable[Envelope]] = lambda envelope: [envelope]
    untrained: dict[str, str] = field(default_factory=dict)
    updates: dict[str, Trained] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    sent: list[Envelope] = field(default_factory=list)
    tasks: list[Any] = field(default_factory=list)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.vault = Vault(self.plan, LAYOUT, np.zeros(LAYOUT.length, np.float32))
        self.codec = Codec(*messages_of_all(), attachment_limit=1 << 20)
        self.attempt: Attempt | None = None

    def run(self, cohort: Iterable[str] | None = None, swap: dict[str, Machine] | None = None) -> Finish:
        self.begin(cohort)
        machines: dict[str, Any] = {COORDINATOR: self.coordinator()}
        machines |= {member.name: self.participant(member.name) for member in self.attempt.members}
        machines |= {member.name: self.helper(member.name) for member in self.attempt.helpers}
        machines |= swap or {}
        self.router = Router(machines, self._perform, self._link)
        self.finished = self.router.run()
        self.vault.forget()
        return self.finished[COORDINATOR]

    def begin(self, cohort: Iterable[str] | None = None) -> None:
        """Describe the next attempt."""
        self.attempts += 1
        self.sent, self.tasks = [], []
        self.attempt = Attempt(
            plan=self.plan,
            number=1,
            attempt=self.attempts,
            model=self.vault.model_digest,
            parameters=LAYOUT.length,
            nonce=bytes([self.attempts]) * 32,
            members=members_of(cohort or names(self.plan.cohort)),
            helpers=members_of(f"h{place:03}" for place in range(self.plan.most_helpers)),
        )

    def coordinator(self) -> CoordinatorRound:
        return CoordinatorRound(self.attempt, identity(COORDINATOR))

    def participant(self, name: str, **changes: Any) -> ParticipantRound:
        settings = {
            "me": name,
            "identity": identity(name),
            "policy": self.policies.get(name, ANYTHING),
            "coordinator": identity(COORDINATOR).public,
            "rng": insecure_seeded_rng(1).child(name, self.attempts),
            "serving": insecure_seeded_rng(2).child(name, self.attempts),
        }
        return ParticipantRound(**(settings | changes))

    def helper(self, name: str) -> HelperRound:
        policy, rng = self.policies.get(name, ANYTHING), insecure_seeded_rng(3).child(name, self.attempts)
        return HelperRound(name, identity(name), policy, identity(COORDINATOR).public, rng)

    def trained(self, name: str) -> Message:
        index = int(name[1:])
        if name in self.untrained:
            return NotTrained(self.untrained[name])
        return self.updates.get(name) or Trained(update_of(index), examples_of(index), {"loss": loss_of(index)})

    @property
    def refused(self) -> dict[str, str]:
        return {at: f"{refusal}" for at, refusal in self.router.refusals}

    def _link(self, envelope: Envelope) -> Iterable[Envelope]:
        self.sent.append(envelope)
        for delivered in self.tamper(envelope):
            frame = self.codec.encode(delivered.message, delivered.attachment)
            message, attachment = self.codec.decode(frame, delivered.sender)
            yield Envelope(delivered.sender, delivered.to, message, attachment, delivered.at)

    def _perform(self, owner: str, task: Any, attachment: Buffer | None) -> Message | None:
        self.tasks.append(task)
        match task:
            case Train():
                return self.trained(owner)
            case Fold(sid, sender):
                assert attachment is not None
                return self.vault.fold(sid, attachment, sender)
            case Settle():
                return self.vault.settle(task)
            case Encapsulate():
                return encapsulate_all(task)
            case SumMasks():
                return sum_masks(task, add_committee_noise)
            case Keep():
                assert attachment is not None
                return self.vault.keep(task, attachment)
            case Merge() | Discard():
                return self.vault.close(task)
            case Open() | OpenCiphers() | Unmask() | Apply():
                return self.vault.perform(task)
        raise AssertionError(f"unknown task {task}")


def mean_of(indices: Iterable[int]) -> Vector:
    """Compute the weighted mean of updates without any protocol."""
    chosen = list(indices)
    total = sum(update_of(i).astype(np.float64) * examples_of(i) for i in chosen)
    return (total / sum(examples_of(i) for i in chosen)).astype(np.float32)


def assert_mean(federation: Federation, indices: Iterable[int]) -> None:
    """Hold the model to the mean, within one rounding step of every participant."""
    chosen = list(indices)
    weight = sum(examples_of(i) for i in chosen)
    fixed = federation.vault.pipeline.encoding.fixed
    tolerance = len(chosen) * fixed.resolution * fixed.max_weight / weight
    np.testing.assert_allclose(federation.vault.model, mean_of(chosen), atol=tolerance)
