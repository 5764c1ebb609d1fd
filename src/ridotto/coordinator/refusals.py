"""What the coordinator says no with: one stable word per kind, one HTTP status, one sentence why (RFC 9457)."""

from __future__ import annotations

from enum import StrEnum

from ridotto.coordinator.blobs import DiskFullError
from ridotto.errors import PeerProtocolError, RidottoError, StorageError
from ridotto.rounds.service import Problem


class RefusalKind(StrEnum):
    """Name every kind of refusal; programs may rely on the word."""

    UNAUTHENTICATED = "unauthenticated"
    NOT_ENROLLED = "not-enrolled"
    EXCLUDED = "excluded"
    NOT_FOUND = "not-found"
    NOT_INCLUDED = "not-included"
    NOT_ALLOWED = "not-allowed"
    TOO_SLOW = "too-slow"
    REFUSED = "refused"
    ATTEMPT_OVER = "attempt-over"
    LENGTH_REQUIRED = "length-required"
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    TOO_MANY = "too-many"
    INTERNAL = "internal"
    STORAGE = "storage"
    SHUTTING_DOWN = "shutting-down"
    STORAGE_FULL = "storage-full"


_KINDS: dict[RefusalKind, tuple[int, str]] = {
    RefusalKind.UNAUTHENTICATED: (401, "The request does not prove who sent it"),
    RefusalKind.NOT_ENROLLED: (403, "This key is not enrolled"),
    RefusalKind.EXCLUDED: (403, "This participant is excluded"),
    RefusalKind.NOT_FOUND: (404, "There is no such thing"),
    RefusalKind.NOT_INCLUDED: (404, "This participant is not in the sum"),
    RefusalKind.NOT_ALLOWED: (405, "This method is not for this address"),
    RefusalKind.TOO_SLOW: (408, "The body did not arrive in time"),
    RefusalKind.REFUSED: (409, "The message is refused"),
    RefusalKind.ATTEMPT_OVER: (410, "This attempt at a round is over"),
    RefusalKind.LENGTH_REQUIRED: (411, "The request does not say how long it is"),
    RefusalKind.TOO_LARGE: (413, "The request is too large"),
    RefusalKind.MALFORMED: (422, "The request can't be read"),
    RefusalKind.TOO_MANY: (429, "Too many ask for this at once"),
    RefusalKind.INTERNAL: (500, "The coordinator has made a mistake"),
    RefusalKind.STORAGE: (503, "The coordinator can't read or write what it stores"),
    RefusalKind.SHUTTING_DOWN: (503, "The coordinator is shutting down"),
    RefusalKind.STORAGE_FULL: (507, "The coordinator's disk is full"),
}


class RefusalError(RidottoError):
    """Refuse a request: what kind of refusal it is, and why."""

    def __init__(self, kind: RefusalKind, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"{kind.value}: {detail}")


def refusal_of(error: Exception) -> RefusalError:
    """Translate an error into what the other side may know about it; of a bug, only that there was one."""
    match error:
        case RefusalError():
            return error
        case PeerProtocolError():
            return RefusalError(RefusalKind.REFUSED, error.why)
        case DiskFullError():
            # Where the files lie and how full the disk is are the operator's business; they stand in the log.
            return RefusalError(RefusalKind.STORAGE_FULL, "nothing was stored; send it again later")
        case StorageError():
            return RefusalError(RefusalKind.STORAGE, "nothing was stored; the operator finds the reason in the log")
        case _:
            return RefusalError(RefusalKind.INTERNAL, "the operator finds the reason in the log")


def problem_of(refusal: RefusalError, instance: str = "") -> Problem:
    """Write a refusal as a problem document. instance: the path that was asked for."""
    status, title = _KINDS[refusal.kind]
    kind = f"about:blank#{refusal.kind.value}"
    return Problem(type=kind, title=title, status=status, detail=refusal.detail, instance=instance)
