"""Who may ask for what: signed requests, enrolment, one-time tokens."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from ridotto.coordinator.refusals import RefusalError, RefusalKind
from ridotto.coordinator.store import Store
from ridotto.core.machine import COORDINATOR, SELF
from ridotto.core.rng import Rng
from ridotto.crypto.identity import RequestAuthError, verify_request
from ridotto.rounds.service import Enrolment

TOKEN_BYTES = 24
"""192 random bits: nobody guesses one, so a plain hash of it can be stored."""


def check_signature(header: str | None, method: str, target: str, body_digest: bytes, now: float) -> bytes:
    """Return the key (32 bytes) that signed a request.

    header: of `Authorization`, None if there is none. now: unix seconds. Raises RefusalError with the reason.
    """
    if header is None:
        raise RefusalError(RefusalKind.UNAUTHENTICATED, "the request has no Authorization header")
    try:
        return verify_request(header, method, target, body_digest, now)
    except RequestAuthError as error:
        raise RefusalError(RefusalKind.UNAUTHENTICATED, str(error)) from error


def check_enrolment(enrolment: Enrolment, signer: bytes) -> bytes:
    """Return the key that asks to be enrolled, if the request was signed with it. Raises RefusalError if not."""
    key = bytes.fromhex(enrolment.key)
    if key != signer:
        # Otherwise somebody could enrol a key that is not his, and keep its owner out.
        raise RefusalError(RefusalKind.UNAUTHENTICATED, "the request is not signed with the key that it enrols")
    if enrolment.name in (COORDINATOR, SELF):
        raise RefusalError(RefusalKind.REFUSED, f"the name {enrolment.name!r} is reserved")
    return key


def enrolment_token(enrolment: Enrolment, allowed: Mapping[str, str] | None) -> bytes | None:
    """Return the hash of the token that an enrolment uses up, or None if the allow-list has it.

    Raises RefusalError if the list has its name with another key, or it brings no token and needs one.
    """
    if allowed is not None and enrolment.name in allowed:
        if allowed[enrolment.name] != enrolment.key:
            raise RefusalError(RefusalKind.NOT_ENROLLED, f"the allow-list has another key for {enrolment.name}")
        return None
    if not enrolment.token:
        why = f"{enrolment.name} is not on the allow-list and brings no token; ask the operator for one"
        raise RefusalError(RefusalKind.NOT_ENROLLED, why)
    return hash_token(enrolment.token)


def issue_tokens(store: Store, count: int, rng: Rng) -> list[str]:
    """Return new one-time enrolment tokens, of which the store keeps only hashes. rng: secret."""
    tokens = [base64.urlsafe_b64encode(rng.bytes(TOKEN_BYTES)).decode() for _ in range(count)]
    store.add_tokens(tuple(hash_token(token) for token in tokens))
    return tokens


def hash_token(token: str) -> bytes:
    """Return what is stored of a token, 32 bytes."""
    return hashlib.sha256(b"ridotto/1 token\x00" + token.encode()).digest()
