"""Where large vectors live: the running sums and the current model. Every coordinator-side driver has one.

The machines say what to do (`Fold`, `Open`, `Apply`); the vault does it. Memory is O(model): one sum per open session,
the model and the strategy's state, however many participants there are.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.core.packing import unpack
from ridotto.core.tensors import write_model
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.core.wire import digest, sentence
from ridotto.crypto.prg import add_masks
from ridotto.errors import DataError
from ridotto.learn.strategy import State
from ridotto.rounds.messages import Applied, Apply, NotApplied
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.secagg.tasks import Open, Opened

Sums = MutableMapping[bytes, IntVector]
"""Running sums by sid. A driver that must survive a kill hands in a mapping that writes through to a store."""

COUNT_LIMIT = 2**48
"""A count lane above this is as wrong as any other wrong one."""


class Vault:
    """Hold the model, the strategy's state and the running sums of one federation.

    sums: where running sums are kept; a dict by default. threads: for the removal of masks.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        model: Vector,
        state: State | None = None,
        sums: Sums | None = None,
        threads: int = 1,
    ) -> None:
        layout.check(model)
        self.plan = plan
        self.layout = layout
        self.pipeline = Pipeline(plan, layout.length)
        self.sums: Sums = {} if sums is None else sums
        self._strategy = plan.optimiser.build()
        self._threads = threads
        self.state: State = self._strategy.init(model) if state is None else state
        self._set_model(model)

    def _set_model(self, model: Vector) -> None:
        require_finite(model, self.layout)
        self.model = model
        self.model_bytes = write_model(model, self.layout)
        self.model_digest = digest(self.model_bytes)

    def fold(self, sid: bytes, attachment: Buffer) -> None:
        """Add one packed vector to a session's sum. Its length was checked by the session's machine.

        Bits that a liar set in the padding are dropped: its message was accepted, so the vector must go into the sum.
        """
        vector = unpack(self._without_padding(attachment), self.plan.bits, self.pipeline.length)
        total = self.sums.get(sid)
        if total is None:
            self.sums[sid] = vector.astype(container(self.plan.bits), copy=True)
            return
        np.add(total, vector, out=total)
        self.sums[sid] = total

    def perform(self, task: Open | Apply) -> Opened | Applied | NotApplied:
        """Carry out a task of the coordinator's machine and return the answer that it waits for."""
        if isinstance(task, Open):
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

    def apply(self, task: Apply) -> Applied:
        """Make the next model from the sums of the sessions that were opened, and forget the sums.

        Raises DataError if they make none: a liar's weight, or learning that diverged. Nothing has changed then.
        """
        total = np.zeros(self.pipeline.length, container(self.plan.bits))
        for sid in task.sids:
            np.add(total, self.sums[sid], out=total)
        result = self.pipeline.decode(total)
        # A model that overflows is refused by name right after; NumPy's warning would only repeat it.
        with np.errstate(over="ignore", invalid="ignore"):
            state, model = self._strategy.apply(self.state, self.model, result.mean)
        self._set_model(model)
        self.state = state
        self.forget()
        return Applied(self.model_digest, result.participants, result.examples, result.saturated, dict(result.metrics))

    def _without_padding(self, attachment: Buffer) -> Buffer:
        used = self.pipeline.length * self.plan.bits % 8
        if not used or not memoryview(attachment)[-1] >> used:
            return attachment
        cleared = bytearray(attachment)
        cleared[-1] &= (1 << used) - 1
        return cleared

    def forget(self) -> None:
        """Drop every sum: the round is over."""
        self.sums.clear()
