"""What coordinator and participant say over HTTP besides frames: both halves of the interface, in one place.

    GET  /v1/federation                     -> FederationInfo (JSON)                     anyone
    POST /v1/participants    Enrolment      -> 201, or 200 if enrolled before (JSON)      with the key to be enrolled
    GET  /v1/inbox?attempt=A&after=N&wait=S -> Inbox (MessagePack)                        signed, enrolled
    POST /v1/messages?attempt=A    a frame  -> 204 once it is durable                     signed, enrolled
    GET  /v1/models/{sha256}                -> safetensors                                anyone
    GET  /v1/models/{sha256}?from={sha256}  -> deltas, or safetensors                     anyone
    GET  /v1/rounds?after=A                 -> SignedRecords of the next attempts (JSON)  anyone
    GET  /v1/rounds/{number}                -> SignedRecord of its last attempt (JSON)    anyone
    GET  /v1/rounds/{number}/receipt?attempt=A     -> SignedReceipt without names (JSON)  anyone
    GET  /v1/rounds/{number}/proof?session={sid}   -> Inclusion, one's own (JSON)         signed, enrolled
    GET  /v1/events                         -> server-sent events (JSON)                  anyone
    GET  /v1/health                         -> {"status": "ok"}                           anyone

A signed request bears `Authorization: Ridotto ...` (`crypto.identity`) over method, path with query, time and the
digest of the body; of a frame, the digest of its prefix and header, which names the attachment's digest. Every
refusal is an RFC 9457 problem document (`Problem`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from ridotto.core.wire import Count, Name, Text
from ridotto.privacy.statement import PrivacyStatement
from ridotto.rounds.plan import Plan

FEDERATION_PATH = "/v1/federation"
PARTICIPANTS_PATH = "/v1/participants"
INBOX_PATH = "/v1/inbox"
MESSAGES_PATH = "/v1/messages"
MODELS_PATH = "/v1/models"
ROUNDS_PATH = "/v1/rounds"
RECEIPT_PART = "/receipt"
PROOF_PART = "/proof"
EVENTS_PATH = "/v1/events"
HEALTH_PATH = "/v1/health"

FRAME_TYPE = "application/vnd.ridotto.frame"
INBOX_TYPE = "application/vnd.ridotto.inbox"
MODEL_TYPE = "application/vnd.safetensors"
DELTAS_TYPE = "application/vnd.ridotto.deltas"
PROBLEM_TYPE = "application/problem+json"

LONGEST_WAIT_S = 30.0
"""A long poll is answered after this at the latest, so that proxies and dead peers are noticed."""

RECORDS_PAGE = 100
"""Records in one answer at most: anyone may ask, and records of large cohorts are large."""

HexKey = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""32 bytes in lower-case hex."""


class RunState(StrEnum):
    """Say what a federation is doing."""

    WAITING = "waiting"
    """For enough participants."""

    RUNNING = "running"
    """A round."""

    DONE = "done"
    """All rounds are over, or the privacy budget has no room for a further one, as the reason then says."""

    FAILED = "failed"
    """Too many rounds failed in a row, or the budget was spent before one succeeded; an operator must look."""


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stand above the bodies of requests and answers."""


class FederationInfo(_Body, frozen=True, kw_only=True):
    """Tell what is trained. round: the current or next one, from 1, and the last one when all are over.

    rounds: how many were asked for. attempt: the current one, 0 before the first. reason: why it failed, or why there
    are fewer rounds than were asked for. present: how many poll just now. helpers_present: how many of the
    helpers that the plan names. privacy: of a plan with differential privacy, what was spent so far. epsilon_left: of
    the budget, None if there is none.
    """

    name: str
    coordinator: HexKey
    plan: Plan
    protection: str
    state: RunState
    reason: str
    round: Count
    rounds: Count
    attempt: Count
    model: HexKey
    parameters: Count
    participants: Count
    present: Count
    helpers_present: Count = 0
    privacy: PrivacyStatement | None = None
    epsilon_left: float | None = None


class Enrolment(_Body, frozen=True, kw_only=True):
    """Ask to be enrolled under a name with an identity key; the request is signed with that key."""

    name: Name
    key: HexKey
    token: Annotated[str, msgspec.Meta(max_length=200)] = ""

    def __repr__(self) -> str:
        return f"Enrolment(name={self.name!r})"


class Inbox(_Body, frozen=True, kw_only=True):
    """Bring the frames of attempt `attempt` that follow the first `after` ones.

    If the attempt is not the one that was asked for, the one asked for is over and `frames` begin at 0.
    """

    attempt: Count
    state: RunState
    reason: Text
    after: Count
    frames: tuple[bytes, ...]


class Problem(_Body, frozen=True, kw_only=True):
    """Refuse with a reason: an RFC 9457 problem document. type: `about:blank#` and a stable word."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = ""
