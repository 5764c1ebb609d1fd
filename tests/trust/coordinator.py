"""The coordinator without a port of `tests.participant.fake`, with receipts and proofs, honest or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from ridotto.core.machine import COORDINATOR, Buffer, Effect, Publish
from ridotto.rounds.inclusion import Inclusion, prove_inclusion
from ridotto.rounds.receipt import OpenedSum, SignedReceipt, commit_sum, encode_receipt, make_receipt, without_names
from ridotto.rounds.record import RoundRecord, sign_record
from ridotto.secagg.session import Session, index_of, session_id
from ridotto.secagg.tasks import Fold, Open
from tests.participant.fake import ME, FakeCoordinator, problem


@dataclass
class ReceiptCoordinator(FakeCoordinator):
    """Keep a receipt of every attempt.

    lie: changes a receipt before it is shown, lie_proof a proof. without: attempts that have none.
    """

    lie: Callable[[SignedReceipt], SignedReceipt] = lambda signed: signed
    lie_proof: Callable[[Inclusion], Inclusion] = lambda proof: proof
    without: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.receipts: dict[int, SignedReceipt] = {}
        self.proofs: dict[bytes, tuple[Session, dict[int, bytes]]] = {}
        self.digests: dict[bytes, dict[str, bytes]] = {}
        self.sums: dict[bytes, bytes] = {}

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.split("/")
        match path[2:]:
            case ["rounds", number, "receipt"]:
                return self._receipt(int(number), int(request.url.params["attempt"]))
            case ["rounds", _, "proof"]:
                sid = bytes.fromhex(request.url.params["session"])
                return self._authenticated(request, b"") or self._proof(sid)
        return super().answer(request)

    def _receipt(self, number: int, attempt: int) -> httpx.Response:
        signed = self.receipts.get(attempt)
        if signed is None or attempt in self.without:
            return problem(404, f"there is no receipt of attempt {attempt} of round {number}")
        return httpx.Response(200, content=encode_receipt(without_names(self.lie(signed))))

    def _proof(self, sid: bytes) -> httpx.Response:
        session, digests = self.proofs[sid]
        if index_of(session, ME) not in digests:
            return problem(404, f"no contribution of {ME} is in the sum of this session")
        proof = self.lie_proof(prove_inclusion(sid, digests, index_of(session, ME)))
        return httpx.Response(200, content=msgspec.json.encode(proof))

    def _perform(self, owner: str, task: Any, attachment: Buffer | None) -> None:
        match task:
            case Fold(sid, sender, sha256):
                self.digests.setdefault(sid, {})[sender] = sha256
            case Open(sid):
                # Masks are gone only once it was opened; which sum a salt hides is nothing that is tested here.
                self.sums[sid] = commit_sum(self.vault.sums[sid].copy(), self.plan.bits, b"s" * 32)
        super()._perform(owner, task, attachment)

    def _carry_out(self, owner: str, effects: list[Effect], attachment: Buffer | None) -> None:
        for effect in effects:
            if owner == COORDINATOR and isinstance(effect, Publish) and isinstance(effect.record, RoundRecord):
                self._keep(effect.record)
        super()._carry_out(owner, effects, attachment)

    def _keep(self, record: RoundRecord) -> None:
        opened = []
        sessions = self.machine.sessions if self.machine is not None else {}
        for part in record.sessions:
            sid = bytes.fromhex(part.sid)
            if not part.failure:
                session = sessions[sid]
                digests = {index_of(session, name): sha256 for name, sha256 in self.digests[sid].items()}
                self.proofs[session_id(session)] = (session, digests)
                opened.append(OpenedSum(session, digests, self.sums[sid]))
        self.receipts[record.attempt] = make_receipt(sign_record(record, self.identity), opened, self.identity)
