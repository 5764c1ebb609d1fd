"""The plan of a round: every choice in one frozen object, which refuses what can't work and says why.

Nothing downstream re-checks policy: a `Plan` that exists is possible. It crosses the wire and is hashed into every
session, so all parties of a round have the same one.
"""

from __future__ import annotations

import math
from functools import cache

import msgspec

from ridotto.core.fixedpoint import FixedPoint
from ridotto.core.wire import digest
from ridotto.errors import PlanError
from ridotto.learn.algorithms import LocalAlgorithm
from ridotto.rounds.clipping import AdaptiveClip, Clip
from ridotto.rounds.compression import Compression, ErrorFeedback, check_compression, check_download, quantizer
from ridotto.rounds.mechanisms import check_private, check_room, spread_of
from ridotto.rounds.protocol_settings import (
    DEFAULT_BITS,
    Committee,
    Helpers,
    Oneshot,
    Seated,
    check_seated,
    packed_bits,
)
from ridotto.rounds.ranges import check_algorithm, check_numbers, check_parts
from ridotto.rounds.risks import HIDING, Risk, protection_of, risks_of, trust_of
from ridotto.rounds.robustness import Robustness, check_robust
from ridotto.rounds.settings import (
    Algorithm,
    BandedGaussian,
    CentralGaussian,
    CommitteeGaussian,
    DistributedGaussian,
    DistributedSkellam,
    Ideal,
    LocalGaussian,
    Mechanism,
    Optimiser,
    Pairwise,
    PrivUnit,
    Settings,
    check_part,
    make_floats,
    refuse_huge,
)
from ridotto.secagg.graph import sparse_parameters

__all__ = [
    "Algorithm",
    "BandedGaussian",
    "CentralGaussian",
    "Committee",
    "CommitteeGaussian",
    "DistributedGaussian",
    "DistributedSkellam",
    "Helpers",
    "Ideal",
    "LocalGaussian",
    "Oneshot",
    "Optimiser",
    "Pairwise",
    "Plan",
    "PrivUnit",
    "Risk",
]

PLAN_DOMAIN = b"ridotto/1 plan\x00"

LARGEST_COHORT = 10_000_000
"""Enough for a simulation; nothing here takes longer for it. What a coordinator can serve is another matter."""

LARGEST_SESSION = 10_000
"""Members of one session at most, where the protocol does not say less."""


class Plan(Settings, frozen=True, kw_only=True):
    """Hold every choice of a round.

    cohort: participants of a round at most. minimum: fewest contributions behind one opened sum; None means two thirds
    of a session, at least 3. protocol: how the sum is kept secret. algorithm: how clients train and what is summed.
    optimiser: what turns the mean update into the next model. bits: width of an element on the wire, 8 to 64.
    value_range: largest |entry| of a summed vector; entries beyond it are cut off and counted. clip: largest l2 norm of
    an update: a number, `Clip`, `AdaptiveClip`, or None. dp: what hides one participant, or None. compress: what makes
    updates smaller, in order (`rounds.compression`). download_bits: of an entry of the difference in which the next
    model goes to who holds the last one, 2 to 16; None for whole models (`rounds.downloads`). robust: what is done
    about liars, or None (`rounds.robustness`). max_examples: largest weight of a participant; more examples count as
    this many. metrics: name -> largest value of a metric (a mean over examples, from -bound to bound); what is not
    named here never leaves the device. join_s: how long a round waits for its cohort once the minimum is there.
    train_s: for training. phase_s: for each message of the secure sum. i_know: risks taken knowingly.

    Raises PlanError, with the reason, for a combination that can't work or a risk that is not acknowledged.
    """

    cohort: int
    minimum: int | None = None
    protocol: Ideal | Pairwise | Oneshot | Committee = Pairwise()
    algorithm: Algorithm = Algorithm()
    optimiser: Optimiser = Optimiser()
    bits: int = DEFAULT_BITS
    value_range: float = 4.0
    clip: float | Clip | AdaptiveClip | None = None
    dp: Mechanism | None = None
    compress: tuple[Compression, ...] = ()
    download_bits: int | None = None
    robust: Robustness | None = None
    max_examples: int = 10_000
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    join_s: float = 10.0
    train_s: float = 600.0
    phase_s: float = 30.0
    i_know: tuple[Risk, ...] = ()

    def __post_init__(self) -> None:
        refuse_huge(msgspec.structs.asdict(self))
        refuse_huge(self.metrics)
        make_floats(self, "value_range", "clip", "metrics", "join_s", "train_s", "phase_s")
        self._normalise()
        if not 1 <= self.cohort <= LARGEST_COHORT:
            raise PlanError(f"cohort is 1 to {LARGEST_COHORT}, not {self.cohort}")
        check_numbers(self)
        check_algorithm(self)
        self._check_compression(self.algorithm.build())
        if self.robust is not None:
            check_robust(self.robust, isinstance(self.protocol, Ideal), self.clip is not None, self)
        self._check_minimum()
        self._check_risks()
        if self.dp is not None:
            check_private(self, self.dp, self.algorithm.build())
        self._check_room()

    def _normalise(self) -> None:
        """Give two ways to write one plan one encoding."""
        check_parts(self)
        check_part("dp", self.dp, Mechanism)
        check_part("robust", self.robust, Robustness)
        if isinstance(self.clip, Clip) and not self.clip.per_layer:
            msgspec.structs.force_setattr(self, "clip", self.clip.norm)
        if not isinstance(self.compress, list | tuple) or not all(
            isinstance(part, Compression) for part in self.compress
        ):
            raise PlanError(
                f"compress is a list such as [ridotto.Rotate(), ridotto.Sample(0.25)], not {self.compress!r}"
            )
        for part in self.compress:
            check_part("compress", part, Compression)
        msgspec.structs.force_setattr(self, "compress", tuple(self.compress))
        quantize = quantizer(self.compress)
        if isinstance(self.protocol, Oneshot):
            msgspec.structs.force_setattr(self, "bits", packed_bits(self.protocol, self.bits))
        elif quantize is not None:
            if self.bits not in (DEFAULT_BITS, quantize.bits):
                raise PlanError(f"the plan has bits = {self.bits}, and Quantize {quantize.bits}: leave one of them out")
            msgspec.structs.force_setattr(self, "bits", quantize.bits)

    def _check_compression(self, chosen: LocalAlgorithm) -> None:
        if self.compress and chosen.sums != 1:
            raise PlanError(f"{chosen.name} sums more than updates, and compression would mix them: take fedavg")
        ideal, private = isinstance(self.protocol, Ideal), self.dp is not None
        check_compression(self.compress, ideal, private, self.clip is not None, chosen.plain)
        if self.download_bits is not None:
            whole = check_download(self.download_bits, chosen.name, chosen.stateful)
            msgspec.structs.force_setattr(self, "download_bits", whole)

    def _check_room(self) -> None:
        """Prove the head-room of the ring as far as it does not depend on the model, or say what is missing."""
        if quantizer(self.compress) is not None:
            return
        if self.dp is None:
            FixedPoint(self.bits, self.value_range, self.summed, self.max_examples)
            return
        check_room(self, self.dp)

    def _check_minimum(self) -> None:
        smallest = self.smallest_session
        if not 1 <= self.least <= smallest:
            raise PlanError(
                f"a sum can't need {self.least} contributions: the smallest session of a cohort of {self.cohort} "
                f"has {smallest}"
            )
        if isinstance(self.protocol, Seated):
            check_seated(self, self.protocol)
        if isinstance(self.protocol, Pairwise):
            corrupt = self.corrupt_of(self.largest_session)
            if corrupt >= self.least:
                found = f"{corrupt} of {self.largest_session} may be corrupt"
                raise PlanError(f"{found}, so a minimum of {self.least} hides nobody")
            if self.least < 2:
                raise PlanError("masks need two: a sum of one contribution is that contribution")
            self.sparse(self.largest_session)

    def _check_risks(self) -> None:
        for risk, sentence in self.risks().items():
            if risk not in self.i_know:
                raise PlanError(f'{sentence} If that is what you want, say i_know = ["{risk.value}"] in the plan.')

    @property
    def protocol_name(self) -> str:
        """Return the protocol's name, as sessions spell it."""
        return str(self.protocol.__struct_config__.tag)

    @property
    def clip_norm(self) -> float | None:
        """Return the largest l2 norm of an update; of an adaptive clip, what it is in this round."""
        return self.clip.norm if isinstance(self.clip, Clip | AdaptiveClip) else self.clip

    def clipped_at(self, norm: float) -> Plan:
        """Return the plan of a round whose adaptive clip is at `norm`; the plan itself if its clip stays."""
        if not isinstance(self.clip, AdaptiveClip) or norm == self.clip.norm:
            return self
        return msgspec.structs.replace(self, clip=msgspec.structs.replace(self.clip, norm=norm))

    @property
    def feeds_back(self) -> bool:
        """Tell whether participants keep what compression lost, for their next update."""
        return any(isinstance(part, ErrorFeedback) for part in self.compress)

    @property
    def multiplier(self) -> float:
        """Return z, the noise on the fewest contributions over the bound of one; 0 without noise, or if unknown yet."""
        return 0.0 if self.dp is None else self.dp.multiplier

    @property
    def shares(self) -> int:
        """Return of how many honest draws the noise of an opened sum is made at least."""
        return self.honest if self.dp is not None and self.dp.shared else 1

    @property
    def spread(self) -> float:
        """Return the noise on a whole sum over the bound of one contribution: with everybody there, more add theirs."""
        return spread_of(self)

    @property
    def individual(self) -> bool:
        """Tell whether every participant's update is opened by itself, for a robust rule."""
        return self.robust is not None and self.robust.individual

    @property
    def least(self) -> int:
        """Return the fewest contributions behind one opened sum."""
        if self.individual:
            return 1
        if self.minimum is not None:
            return self.minimum
        return min(self.smallest_session, max(HIDING, math.ceil(self.smallest_session * 2 / 3)))

    @property
    def quorum(self) -> int:
        """Return the fewest contributions that a model is made of."""
        if not self.individual:
            return self.least
        return math.ceil(self.cohort * 2 / 3) if self.minimum is None else self.minimum

    @property
    def fewest_sums(self) -> int:
        """Return of how many opened sums a model is made at least: a rule's promise is for so many."""
        if self.robust is None:
            return 1
        sums = self.quorum if self.individual else math.ceil(self.sessions_of(self.cohort) * 2 / 3)
        chosen = self.robust.build()
        return max(sums, chosen.least(chosen.attackers or 0))

    @property
    def session_limit(self) -> int:
        """Return how many members one session may have."""
        if self.individual:
            return 1
        limit = LARGEST_SESSION
        if isinstance(self.protocol, Seated) or (
            isinstance(self.protocol, Pairwise) and self.protocol.graph == "complete"
        ):
            limit = self.protocol.shard_size
        return limit if self.robust is None else min(limit, -(-self.cohort // self.robust.groups))

    @property
    def summed(self) -> int:
        """Return the most contributions that are ever added up: a rule keeps the sums of its groups apart."""
        return self.cohort if self.robust is None else self.largest_session

    def sessions_of(self, count: int) -> int:
        """Return into how many sessions so many participants are cut."""
        cut = -(-count // self.session_limit)
        return cut if self.robust is None or self.individual else min(count, max(self.robust.groups, cut))

    @property
    def smallest_session(self) -> int:
        """Return the members of the smallest session of a full cohort."""
        return self.cohort // self.sessions_of(self.cohort)

    @property
    def largest_session(self) -> int:
        """Return the most members of one session: fewer participants than the cohort may end up in fewer sessions."""
        return min(self.cohort, self.session_limit)

    def cohort_of(self, present: int) -> int:
        """Return how many of `present` participants can be in a round: 0 if they are too few for one session."""
        count = min(present, self.cohort)
        shards = self.sessions_of(count)
        if shards and count // shards < self.least and self.robust is None:
            # One session less, and full ones: better than none.
            shards, count = shards - 1, (shards - 1) * self.session_limit
        enough = count >= self.quorum and shards and count // shards >= self.least
        return count if enough and self._has_graphs(count, shards) else 0

    def _has_graphs(self, count: int, shards: int) -> bool:
        try:
            for members in (count // shards, -(-count // shards)):
                self.sparse(members)
                self.seats(members)
        except PlanError:
            return False
        return True

    def corrupt_of(self, members: int) -> int:
        """Return how many of a session's members are taken to collude with the coordinator."""
        if isinstance(self.protocol, Ideal):
            return 0
        return math.ceil(self.protocol.corrupt * members - 1e-9)

    def sparse(self, members: int) -> tuple[int, int]:
        """Return (neighbours, threshold) of a session; (0, 0) for a complete graph.

        Raises PlanError if no sparse graph over so few is safe.
        """
        if not isinstance(self.protocol, Pairwise) or self.protocol.graph == "complete":
            return 0, 0
        return sparse_parameters(members, self.corrupt_of(members), math.ceil(self.protocol.drop_out * members))

    @property
    def helpers(self) -> Helpers | None:
        """Return who serves on committees and does not train; None where nobody does."""
        return self.protocol.helpers if isinstance(self.protocol, Seated) else None

    @property
    def most_helpers(self) -> int:
        """Return how many helpers there are if all come: those that are named, or as many as there are seats."""
        if not isinstance(self.protocol, Seated) or self.protocol.helpers is None:
            return 0
        return len(self.protocol.helpers.keys) or self.protocol.full

    def with_helpers(self, keys: dict[str, str]) -> Plan:
        """Return the same plan with other helpers; itself where it has none."""
        if not isinstance(self.protocol, Seated) or self.protocol.helpers is None:
            return self
        helpers = msgspec.structs.replace(self.protocol.helpers, keys=keys)
        return msgspec.structs.replace(self, protocol=msgspec.structs.replace(self.protocol, helpers=helpers))

    def served_by(self, helpers: int) -> bool:
        """Tell whether so many helpers are enough for the plan's committees."""
        try:
            return self.helpers is None or self.seats(self.smallest_session, helpers) > 0
        except PlanError:
            return False

    def seats(self, members: int, helpers: int | None = None) -> int:
        """Return the seats of a session's committee, with so many helpers or all; 0 where there is none.

        Raises PlanError if so few have no committee that works.
        """
        if not isinstance(self.protocol, Seated):
            return 0
        return self.protocol.seats(members, self.most_helpers if helpers is None else helpers)

    @property
    def honest(self) -> int:
        """Return how many honest contributions are in an opened sum at least: of whose noise one can be sure."""
        # The largest session has most corrupt members, and may be opened with as few contributions as any other.
        return self.least - self.corrupt_of(self.largest_session)

    def fingerprint(self) -> bytes:
        """Return SHA-256 over the plan's encoding, 32 bytes."""
        return _fingerprint(self.encode())

    def encode(self) -> bytes:
        """Return the plan as MessagePack; the same plan gives the same bytes."""
        return msgspec.msgpack.encode(self, order="deterministic")

    def risks(self) -> dict[Risk, str]:
        """Return what this plan does not protect against, in sentences."""
        return risks_of(self)

    def protection(self) -> str:
        """Say in a few sentences what the coordinator can learn, and which risks the plan takes."""
        return protection_of(self)

    @property
    def trust(self) -> str:
        """Say who must be honest for the noise of `dp` to be there."""
        return trust_of(self)


@cache
def _fingerprint(encoded: bytes) -> bytes:
    return digest(PLAN_DOMAIN + encoded)
