"""What is kept of a round: who was asked, who is in the sum, who was lost and why, which model came out.

Records are public to whoever may see the federation; they hold no update, weight or metric of one participant.
"""

from __future__ import annotations

import msgspec

from ridotto.core.wire import digest
from ridotto.crypto.seal import IdentityKey, SignatureError, verify
from ridotto.privacy.statement import PrivacyStatement
from ridotto.secagg.session import SessionResult

RECORD_CONTEXT = "round record"
RECORD_DOMAIN = b"ridotto/1 record\x00"


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep how one session ended.

    sid: hex. failure: empty if its sum was opened. excluded: why the plan's robust rule left the sum out, or nothing.
    """

    sid: str
    shard: int
    members: int
    included: tuple[str, ...]
    lost: dict[str, str]
    failure: str = ""
    blamed: tuple[str, ...] = ()
    excluded: str = ""


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep how one attempt at a round ended.

    plan, model_before, model: SHA-256, hex; `model` is `model_before` if the round failed. started, finished:
    seconds of the driver's clock. participants, examples: in the applied sums. metrics: weighted means over
    participants. failure: empty if a model came out. clip: the largest norm of an update, if there was one; clipped:
    how many were longer, None if that is not known, and under differential privacy an estimate. privacy: of a plan with
    differential privacy, what was spent in all once this attempt had begun, its own cost included, and everything that
    the number depends on. epsilon_left: of the budget, None if there is none.
    """

    round: int
    attempt: int
    plan: str
    protocol: str
    model_before: str
    model: str
    started: float
    finished: float
    sessions: tuple[SessionRecord, ...]
    participants: int = 0
    examples: int = 0
    saturated: int = 0
    metrics: dict[str, float] = {}
    failure: str = ""
    clip: float | None = None
    clipped: float | None = None
    privacy: PrivacyStatement | None = None
    epsilon_left: float | None = None

    @property
    def lost(self) -> dict[str, str]:
        """Return everyone who was lost, with where and why."""
        return {name: why for session in self.sessions for name, why in session.lost.items()}

    @property
    def excluded(self) -> dict[str, str]:
        """Return everyone whose session's sum was left out as a lie, and why; one liar costs all of its session."""
        return {name: part.excluded for part in self.sessions if part.excluded for name in part.included}

    @property
    def blamed(self) -> tuple[str, ...]:
        """Return who broke a session, as far as it could be found out."""
        return tuple(name for session in self.sessions for name in session.blamed)

    def statement(self) -> bytes:
        """Return what the coordinator signs: SHA-256 over the record's encoding."""
        return digest(RECORD_DOMAIN + msgspec.msgpack.encode(self, order="deterministic"))


class SignedRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put a record under the coordinator's signature. coordinator, signature: hex."""

    record: RoundRecord
    coordinator: str
    signature: str

    def check(self, coordinator: bytes) -> None:
        """Check that the coordinator with this key (32 bytes) signed the record.

        Raises SignatureError if not.
        """
        if self.coordinator != coordinator.hex():
            raise SignatureError(f"the record names coordinator {self.coordinator[:16]}, not {coordinator.hex()[:16]}")
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError as error:
            raise SignatureError("the record's signature is not hexadecimal") from error
        verify(coordinator, RECORD_CONTEXT, self.record.statement(), signature)


def with_privacy(record: RoundRecord, statement: PrivacyStatement) -> RoundRecord:
    """Return a record that also says what was spent. statement: with the attempt that the record is about."""
    return msgspec.structs.replace(record, privacy=statement, epsilon_left=statement.left)


def sign_record(record: RoundRecord, identity: IdentityKey) -> SignedRecord:
    """Sign a record as its coordinator."""
    signature = identity.sign(RECORD_CONTEXT, record.statement())
    return SignedRecord(record=record, coordinator=identity.public.hex(), signature=signature.hex())


def session_record(
    result: SessionResult, shard: int, members: int, failure: str, blamed: tuple[str, ...]
) -> SessionRecord:
    """Turn a session's result into what is kept of it."""
    return SessionRecord(
        sid=result.sid.hex(),
        shard=shard,
        members=members,
        included=result.included,
        lost=dict(result.lost),
        failure=failure,
        blamed=blamed,
    )
