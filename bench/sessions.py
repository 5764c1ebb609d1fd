"""The sums of a round of many sessions in a process of its own, kept as a service keeps them: see memory.py.

    python -m bench.sessions PROTOCOL SESSIONS LENGTH

Every session is folded into before the first is opened, as when all run at once. Each has one contribution, the same
for all: nobody trains, and who sends what is not what is measured. It prints its memory as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.half import memory
from ridotto.coordinator.blobs import Blobs
from ridotto.coordinator.kept import StoredCiphers
from ridotto.coordinator.sums import StoredSums
from ridotto.core.fixedpoint import container
from ridotto.core.machine import Buffer
from ridotto.core.packing import pack
from ridotto.core.vector import Field, Layout
from ridotto.crypto.lattice.kahe import encrypt, generate_key
from ridotto.crypto.lattice.loops import LOOPS
from ridotto.crypto.lattice.samplers import public_elements
from ridotto.rounds.ciphers import shape_of, sum_dtype
from ridotto.rounds.messages import Apply, Merge
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Ideal, Oneshot, Plan, Risk
from ridotto.rounds.totals import TOTAL
from ridotto.rounds.vault import Opening, Vault
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.tasks import Open

COHORT = 1_000
SEED = b"s" * 32


def make_plan(protocol: str) -> Plan:
    if protocol == "ideal":
        return Plan(cohort=COHORT, protocol=Ideal(), i_know=(Risk.NO_PROTECTION,))
    return Plan(cohort=COHORT, protocol=Oneshot())


def contribution(pipeline: Pipeline) -> Buffer:
    """Return what a participant sends whose update is zero."""
    vector = np.zeros(pipeline.length, container(pipeline.plan.bits))
    vector[pipeline.entries :] = pipeline.lanes.write([1, 0])
    if isinstance(pipeline.plan.protocol, Ideal):
        return pack(vector, pipeline.plan.bits)
    shape = shape_of(pipeline)
    return encrypt(vector, generate_key(SEED), SEED, public_elements(SEED, shape.elements), shape, LOOPS)


def opening(plan: Plan, sid: bytes) -> Opening:
    if isinstance(plan.protocol, Ideal):
        return Open(sid, ())
    return OpenCiphers(sid, generate_key(SEED).astype("<i4").tobytes(), 1, SEED)


class Stored:
    """A vault over files. What the store would commit is taken for committed."""

    def __init__(self, plan: Plan, length: int, folder: Path) -> None:
        blobs = Blobs(folder)
        self.plan = plan
        self.sums, self.kept = StoredSums(blobs, {}, sum_dtype(plan)), StoredCiphers(blobs)
        layout = Layout((Field("w", (length,), "float32"),))
        self.vault = Vault(plan, layout, np.zeros(length, np.float32), sums=self.sums, kept=self.kept)

    def commit(self) -> None:
        self.sums.changes()
        self.sums.settle()
        self.kept.settle()

    def run(self, sessions: int) -> None:
        sids = [bytes([1 + number]) * 32 for number in range(sessions)]
        sent = contribution(self.vault.pipeline)
        for sid in sids:
            self.vault.fold(sid, sent, "p0")
            self.vault.settle(Settle(sid, ()))
            self.commit()
        for sid in sids:
            self.vault.perform(opening(self.plan, sid))
            self.vault.close(Merge(sid, 1))
            self.commit()
        applied = self.vault.apply(Apply(1, (TOTAL,)))
        assert applied.participants == sessions


def main() -> None:
    protocol, sessions, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Otherwise they come once enough ciphertexts were folded, and look like memory of the sessions.
    if protocol == "oneshot":
        LOOPS.load()
    with tempfile.TemporaryDirectory() as folder:
        stored = Stored(make_plan(protocol), length, Path(folder))
        empty = memory("VmRSS")
        stored.run(sessions)
    print(json.dumps({"empty": empty, "peak": memory("VmHWM")}))


if __name__ == "__main__":
    main()
