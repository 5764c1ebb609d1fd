"""Where large vectors live: the running sums and the current model. Every coordinator-side driver has one.

The machines say what to do (`Fold`, `Open`, `Merge`, `Apply`); the vault does it. Memory is O(model): one sum per open
session, the total of those that have ended, the model, the algorithm's and the strategy's state, however many
participants there are. Where a robust rule looks at every sum, all stay until it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.core.packing import packed_size
from ridotto.core.rng import SEED_BYTES, Rng
from ridotto.core.sparse_packing import unpack_either
from ridotto.core.tensors import write_model
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.core.wire import digest, sentence
from ridotto.crypto.prg import add_masks
from ridotto.errors import ConfigError, DataError, LocalProtocolError
from ridotto.learn.strategy import State
from ridotto.privacy.noise.words import Words
from ridotto.rounds.ciphers import CipherSums
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.combine import Combined, added_up, by_rule
from ridotto.rounds.downloads import most_deltas, rounded
from ridotto.rounds.kept import Kept, KeptInMemory
from ridotto.rounds.masked import MaskedSums
from ridotto.rounds.memory import next_noise
from ridotto.rounds.messages import Applied, Apply, Discard, Merge, NotApplied
from ridotto.rounds.pipeline import Pipeline, RoundSum
from ridotto.rounds.plan import Committee, Oneshot, Plan
from ridotto.rounds.totals import TOTAL, merge
from ridotto.secagg.committee.tasks import Keep, Unmask
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers
from ridotto.secagg.tasks import COUNT_LIMIT, Open, Opened

Sums = MutableMapping[bytes, IntVector]
"""Sums by sid, and the round's total as `TOTAL`. A driver that must survive a kill hands in a mapping that writes
through to a store."""

Opening = Open | OpenCiphers | Unmask
"""What opens a sum, by protocol."""

NoiseSource = Callable[[int], Rng]
"""A round's number -> secret randomness for the noise on that round's sum, never the same twice: from the operating
system in a service (`lambda number: OsRng()`), by name in a simulation."""

RootUpdate = Callable[[Vector, int], Vector]
"""(model, round's number) -> the server's own update, shape (d,), for robust rules that compare with one."""

CLIP_STATE = "clip.norm"
"""The name, in `Vault.state`, of an adaptive clip's norm for the next round: float32, shape (1,)."""

ALGORITHM_PREFIX = "algorithm."
"""Before the names of the algorithm's arrays in `Vault.state`; the strategy's have none."""


class Vault:
    """Hold the model, the server's state and the running sums of one federation.

    plan: of the first round, kept as `first_plan`; where the clip adapts, the attribute `plan` is that of the next
    round, and `pipeline` with it. state: the strategy's, the algorithm's, the clip's and the noise's arrays, as `state`
    gave them; None for a new federation. sums: where running sums are kept; a dict by default. threads: for the removal
    of masks. population: everybody who could take part in a round; algorithms whose clients have a state need it.
    noise: for plans whose coordinator adds noise; it has no default, because noise that somebody can guess is none.
    expected: how many contributions a round has in the mean; then sums are divided by that and not by how many there
    were, as the accounting of Poisson samples asks. root: for robust rules that need the server's own update. kept: for
    protocols whose ciphertexts may have to be taken out again; memory by default.
    Raises DataError if the model does not fit its layout, ConfigError if population, noise or root are needed and not
    given.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        model: Vector,
        state: State | None = None,
        sums: Sums | None = None,
        threads: int = 1,
        population: int = 0,
        noise: NoiseSource | None = None,
        expected: float | None = None,
        root: RootUpdate | None = None,
        kept: Kept | None = None,
    ) -> None:
        layout.check(model)
        self.first_plan = plan
        self.layout = layout
        self.algorithm = plan.algorithm.build()
        if self.algorithm.stateful and population < 1:
            raise ConfigError(f"{self.algorithm.name} needs to know how many could take part; found {population}")
        if plan.dp is not None and plan.dp.central and noise is None:
            raise ConfigError("a plan whose coordinator adds noise needs a source of secret randomness for it")
        if plan.robust is not None and plan.robust.build().rooted and root is None:
            raise ConfigError(f"{plan.robust.build().name} compares with an update of the server's own: it needs data")
        self._root = root
        self._noise = noise
        self._expected = expected
        self._size: int | Layout = layout if self.algorithm.sums == 1 else self.algorithm.sums * layout.length
        self.sums: Sums = {} if sums is None else sums
        self._kept: Kept = KeptInMemory() if kept is None else kept
        self._strategy = plan.optimiser.build()
        self._threads = threads
        self._population = population
        if state is None:
            state = {**self._strategy.init(model), **_prefixed(self.algorithm.begin(model))}
        self.state: State = state
        self._set_plan(plan)
        self._set_model(model)
        self.delta: bytes | None = None
        """What made the model of its predecessor in the last round, if the plan has `download_bits`."""

    @property
    def most_deltas(self) -> int:
        """Return how many rounds' deltas are together shorter than the model: 0 without `download_bits`."""
        return most_deltas(len(self.model_bytes), self.layout.length, self.plan.download_bits)

    @property
    def clients_keep(self) -> bool:
        """Tell whether clients keep a vector between rounds: for the algorithm, or for error feedback."""
        return self.algorithm.stateful or self.plan.feeds_back

    @property
    def algorithm_state(self) -> State:
        """Return what clients are told beside the model: the algorithm's arrays, under the names it gave them."""
        start = len(ALGORITHM_PREFIX)
        return {name[start:]: array for name, array in self.state.items() if name.startswith(ALGORITHM_PREFIX)}

    def _set_plan(self, plan: Plan) -> None:
        """Take the plan of the next round: the same one, at the clip that the state says."""
        norm = self.state.get(CLIP_STATE)
        self.plan = plan if norm is None else plan.clipped_at(float(norm[0]))
        self.pipeline = Pipeline(self.plan, self._size)

    def _set_model(self, model: Vector) -> None:
        require_finite(model, self.layout)
        self.model = model
        self.model_bytes = write_model(model, self.layout)
        self.model_digest = digest(self.model_bytes)

    @property
    def _seated(self) -> CipherSums | MaskedSums | None:
        """Return the sums of a protocol with a committee."""
        match self.plan.protocol:
            case Oneshot():
                return CipherSums(self.pipeline, self.sums, self._kept)
            case Committee():
                return MaskedSums(self.pipeline, self.sums, self._kept)
            case _:
                return None

    def fold(self, sid: bytes, attachment: Buffer, sender: str = "") -> None:
        """Add one packed vector to a session's sum. Its length was checked by the session's machine.

        sender: for protocols that may take it out again, and then keep what it sent.
        Bits that a liar set in the padding are dropped: its message was accepted, so the vector must go into the sum.
        Of a shorter vector that is no sparse form, nothing is left; then the count lane says that one is missing.
        """
        if (seated := self._seated) is not None:
            seated.fold(sid, sender, attachment)
            return
        try:
            vector = unpack_either(self._without_padding(attachment), self.plan.bits, self.pipeline.length)
        except DataError:
            vector = np.zeros(self.pipeline.length, container(self.plan.bits))
        total = self.sums.get(sid)
        if total is None:
            self.sums[sid] = vector.astype(container(self.plan.bits), copy=True)
            return
        np.add(total, vector, out=total)
        self.sums[sid] = total

    def settle(self, task: Settle) -> None:
        """Take out of a session's sum what is not in its final set. Raises LocalProtocolError if it was not kept."""
        if (seated := self._seated) is not None:
            seated.settle(task)

    def keep(self, task: Keep, attachment: Buffer) -> None:
        """Keep what a committee's member released, until the sum is opened."""
        if isinstance(seated := self._seated, MaskedSums):
            seated.keep(task, attachment)

    def perform(self, task: Opening | Apply) -> Opened | Applied | NotApplied:
        """Carry out a task of the coordinator's machine and return the answer that it waits for."""
        match task:
            case OpenCiphers():
                return self._decrypt(task)
            case Unmask():
                return self._unmask(task)
            case Open():
                return self.open(task)
        try:
            return self.apply(task)
        except DataError as error:
            return NotApplied(sentence(error))

    def open(self, task: Open) -> Opened:
        """Remove what masks are left in a sum and read its check lanes."""
        total = self.sums[task.sid]
        add_masks(total, task.masks, task.sid, threads=self._threads)
        self.sums[task.sid] = total
        lanes = self.pipeline.read_lanes(total)
        return Opened(task.sid, min(lanes.count, COUNT_LIMIT), lanes.zero)

    def _decrypt(self, task: OpenCiphers) -> Decrypted:
        if not isinstance(seated := self._seated, CipherSums):
            raise LocalProtocolError(f"{self.plan.protocol_name} has no ciphertexts to open")
        return seated.open(task)

    def _unmask(self, task: Unmask) -> Opened:
        if not isinstance(seated := self._seated, MaskedSums):
            raise LocalProtocolError(f"{self.plan.protocol_name} has no committee that takes masks off")
        return seated.open(task)

    def opened(self, sid: bytes) -> IntVector:
        """Return a sum that was opened and holds, or `TOTAL`, dtype `container(bits)`, shape (pipeline.length,)."""
        seated = self._seated
        return self.sums[sid] if seated is None else seated.opened(sid)

    @property
    def merged(self) -> int:
        """Return how many contributions are in the round's total, as its count lane says."""
        return self.pipeline.read_lanes(self.opened(TOTAL)).count if TOTAL in self.sums else 0

    def close(self, task: Merge | Discard) -> None:
        """Put the sum of a session that has ended into the round's total, or away."""
        match task:
            case Merge(sid):
                part = self.sums[sid]
                # First, so that a mapping that writes through does not write it once more.
                del self.sums[sid]
                self._add_to_total(part)
            case Discard(sid):
                if sid in self.sums:
                    del self.sums[sid]
                self._kept.forget(sid)

    def _add_to_total(self, part: IntVector) -> None:
        total = self.sums.get(TOTAL)
        if total is None:
            self.sums[TOTAL] = part
            return
        merge(total, part)
        self.sums[TOTAL] = total

    def apply(self, task: Apply) -> Applied:
        """Make the next model from the round's total, or from each session's sum by a rule, and forget the sums.

        Raises DataError if they make none: a liar's weight, or learning that diverged. Nothing has changed then.
        """
        applied = self.apply_totals({sid: self.opened(sid) for sid in task.sids}, task.round, task.seed)
        self.forget()
        return applied

    def apply_totals(self, totals: Mapping[bytes, IntVector], number: int, seed: bytes) -> Applied:
        """Make the next model from a round's sums, each of shape (pipeline.length,), wherever they were added up.

        totals: by sid, or by any name; they are added up unless the plan has a robust rule, which looks at each.
        number: of the round; it names the coordinator's noise, if there is any. seed: what the participants of the
        attempt shared, if the plan compresses.
        Raises DataError as `apply` does. Nothing has changed then.
        """
        row, remembered = self._remembered_noise(number)
        combined = self._combined([*totals.values(), *row], number, seed)
        result = combined.sum
        # A model that overflows is refused by name right after; NumPy's warning would only repeat it.
        with np.errstate(over="ignore", invalid="ignore"):
            own, mean_update = self.algorithm.combine(
                self.algorithm_state, result.mean, result.metrics, result.participants, self._population
            )
            state, model = self._strategy.apply(self.state, self.model, mean_update)
        bits = self.plan.download_bits
        following = rounded(self.model, self.model_digest, model, self.state, bits, self.layout)
        self._set_model(following.model)
        self.delta = following.delta
        clip = self.plan.clip_norm
        self.state = {**state, **_prefixed(own), **self._next_clip(result), **following.state, **remembered}
        self._set_plan(self.plan)
        names = list(totals)
        return Applied(
            self.model_digest,
            result.participants,
            result.examples,
            result.saturated,
            dict(result.metrics),
            clip,
            result.clipped,
            {names[number]: sentence(why) for number, why in combined.excluded.items()},
        )

    def _combined(self, totals: Sequence[IntVector], number: int, seed: bytes) -> Combined:
        source = None if self._noise is None else self._noise(number)

        def words(_: int) -> Words | None:
            return None if source is None else Words(source.bytes(SEED_BYTES))

        if self.plan.robust is None:
            return added_up(self.pipeline, totals, words, seed, self._expected)
        root = None if self._root is None else self._root(self.model, number)
        return by_rule(self.pipeline, totals, words, seed, root)

    def _remembered_noise(self, number: int) -> tuple[Sequence[IntVector], State]:
        """Return banded noise as one more sum, and what is to be remembered of it; nothing for other plans."""
        noise, source = self.pipeline.noise, self._noise
        if noise is None or noise.banded is None or source is None:
            return (), {}

        def words(own: int) -> Words:
            return Words(source(own).bytes(SEED_BYTES))

        row, remembered = next_noise(noise.banded, self.state, number, words, self.pipeline.entries)
        total = np.zeros(self.pipeline.length, container(self.plan.bits))
        total[: self.pipeline.entries] = row.astype(total.dtype)
        return (total,), remembered

    def _next_clip(self, result: RoundSum) -> State:
        """Return the norm of an adaptive clip after the round."""
        if not isinstance(self.plan.clip, AdaptiveClip) or result.clipped is None:
            return {}
        within = 1 - result.clipped / result.participants
        return {CLIP_STATE: np.array([self.plan.clip.after(within)], np.float32)}

    def _without_padding(self, attachment: Buffer) -> Buffer:
        used = self.pipeline.length * self.plan.bits % 8
        whole = len(attachment) == packed_size(self.pipeline.length, self.plan.bits)
        if not whole or not used or not memoryview(attachment)[-1] >> used:
            return attachment
        cleared = bytearray(attachment)
        cleared[-1] &= (1 << used) - 1
        return cleared

    def forget(self) -> None:
        """Drop every sum, and what was kept of it: the round is over."""
        self.sums.clear()
        self._kept.clear()


def _prefixed(state: State) -> State:
    return {ALGORITHM_PREFIX + name: array for name, array in state.items()}
