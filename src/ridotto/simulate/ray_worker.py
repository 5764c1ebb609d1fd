"""The ray engine's other side: what an actor does. It knows nothing of Ray, which calls its methods and moves bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ridotto.core.fixedpoint import IntVector
from ridotto.core.vector import Vector
from ridotto.simulate.job import Job, Update
from ridotto.simulate.pieces import Piece
from ridotto.simulate.pool_worker import Setup
from ridotto.simulate.threads import limit_process_to_one_thread
from ridotto.simulate.worker import Worker

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")}
"""Environment of an actor. Limits set by a call reach only what is loaded; these reach what a trainer loads later."""

Sent = tuple[Exception, str]
"""An error, and the traceback that it had where it was raised."""


@dataclass(frozen=True)
class Report:
    """Tell what became of a piece. dropped, kept: as in `Answer`; updates: of its clients, if they were asked for."""

    failure: Sent | None = None
    dropped: Mapping[int, str] = field(default_factory=dict)
    kept: Mapping[int, Vector] = field(default_factory=dict)
    updates: tuple[Update | Sent, ...] = ()


class RayWorker:
    """Hold one worker and its sum; train what the driver says.

    pack: makes an error ready to be sent. Errors of user code are returned: raised, Ray would wrap them in its own.
    """

    def __init__(self, pack: Callable[[Exception], Sent]) -> None:
        # Before trainer and clients arrive, and with them the libraries that they are made of.
        os.environ.update(ONE_THREAD)
        self._pack = pack
        self._order = -1
        self._kept: dict[int, Vector] = {}

    def prepare(self, setup: Setup) -> Sent | None:
        """Take what is needed to train; return the error if that fails."""
        limit_process_to_one_thread()
        try:
            self._worker = Worker(setup.trainer, setup.clients, setup.plan, setup.rng, setup.batch)
        except Exception as error:
            return self._pack(error)
        return None

    def begin(self, order: int, job: Job) -> None:
        """Forget the order before, with its sum, and take this one. What clients kept comes with the pieces."""
        self._order = -1
        self._worker.begin(replace(job, kept=self._kept))
        self._order = order

    def train(self, order: int, piece: Piece, kept: Mapping[int, Vector], updates: bool) -> Report:
        """Train the clients of a piece and add their updates to the sum, or return them.

        kept: position -> what a client of this piece kept from its last round.
        """
        self._check(order)
        self._kept.clear()
        self._kept.update(kept)
        worker = self._worker
        if updates:
            starts = range(piece.begin, piece.end, worker.batch)
            found = [one for at in starts for one in worker.updates(at, min(at + worker.batch, piece.end))]
            return Report(updates=tuple(self._pack(one) if isinstance(one, Exception) else one for one in found))
        try:
            worker.train(piece.begin, piece.end)
        except Exception as error:
            return Report(self._pack(error))
        report = Report(None, dict(worker.dropped), dict(worker.kept))
        worker.dropped.clear()
        worker.kept.clear()
        return report

    def collect(self, order: int) -> tuple[IntVector, float, int]:
        """Hand in the sum, the wall seconds of training, and `sparse_bytes` of an `Answer`.

        Nothing more is trained for this order.
        """
        self._check(order)
        self._order = -1
        return self._worker.total, self._worker.train_s, self._worker.sparse_bytes

    def _check(self, order: int) -> None:
        """Refuse to add to a sum that is not this order's: the order was lost on its way."""
        if order != self._order:
            raise RuntimeError(f"this actor works on order {self._order}, not on {order}")
