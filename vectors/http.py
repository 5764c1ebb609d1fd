"""Vectors of signed requests, and of the bodies that are not frames."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import msgspec

from ridotto.core.wire import PREFIX, digest
from ridotto.crypto.identity import sign_request, verify_request
from ridotto.crypto.seal import IdentityKey
from ridotto.rounds.service import Enrolment, Inbox, Problem, RunState
from vectors.announcements import CODEC, honest
from vectors.common import identity_of
from vectors.crypto import refused

NOW = 1_750_000_000
FRAME = CODEC.header(honest()["no"])


def build() -> dict[str, object]:
    """Return everything that is in http.json."""
    return {
        "page": "docs/protocols/http.md",
        "requests": [
            request("GET", "/v1/inbox?attempt=3&after=0&wait=30", b""),
            request("POST", "/v1/messages?attempt=3", FRAME, frame=True),
            request("POST", "/v1/participants", enrolment()),
        ],
        "request_refusals": request_refusals(),
        "bodies": bodies(),
    }


def enrolment() -> bytes:
    """Return a body that asks to be enrolled."""
    return msgspec.json.encode(Enrolment(name="p0", key=identity_of("p0").public.hex(), token="once"))  # noqa: S106


def request(method: str, target: str, body: bytes, frame: bool = False) -> dict[str, object]:
    """Return a request of p0. frame: what is hashed is the frame's prefix and header, here all of it."""
    identity = identity_of("p0")
    hashed = body[: PREFIX.size + PREFIX.unpack(body[: PREFIX.size])[1]] if frame else body
    return {
        "private": identity.to_bytes().hex(),
        "method": method,
        "target": target,
        "time": NOW,
        "hashed": hashed.hex(),
        "body_digest": digest(hashed).hex(),
        "authorization": sign_request(identity, method, target, NOW, digest(hashed)),
    }


def request_refusals() -> list[dict[str, object]]:
    """Return requests that prove nothing: the header, what was received, and the clock of the coordinator."""
    identity, other = identity_of("p0"), identity_of("p1")
    target, body = "/v1/inbox?attempt=3&after=0&wait=30", digest(b"")
    good = sign_request(identity, "GET", target, NOW, body)
    signature = good.partition('signature="')[2][:-1]
    honest: dict[str, Any] = {"header": good, "method": "GET", "target": target, "body_digest": body, "now": NOW}
    cases: dict[str, dict[str, Any]] = {
        "another method": {"method": "POST"},
        "another target": {"target": target + "0"},
        "another body": {"body_digest": digest(b"x")},
        "a clock that is behind": {"now": NOW + 301},
        "a clock that is ahead": {"now": NOW - 301},
        "a time that was changed": {"header": good.replace(str(NOW), str(NOW + 1))},
        "another key": {"header": good.replace(identity.public.hex(), other.public.hex())},
        "capital digits": {"header": good.replace(identity.public.hex(), identity.public.hex().upper())},
        "a key of 31 bytes": {"header": good.replace(identity.public.hex(), identity.public.hex()[2:])},
        "a time with a leading zero": {"header": good.replace(f'"{NOW}"', f'"0{NOW}"')},
        "a time below zero": {"header": good.replace(f'"{NOW}"', f'"-{NOW}"')},
        "another scheme": {"header": good.replace("Ridotto", "Bearer")},
        "two spaces": {"header": good.replace(", ", ",  ")},
        "no signature": {"header": good[: good.index(", signature")]},
        "a signature of another request": {"header": _of_another(identity, target)},
        "base64 with bits to spare": {"header": good.replace(signature, _loose(signature))},
        "base64 without its end": {"header": good.replace("==", "")},
        "something behind it": {"header": good + " "},
    }
    rows: list[dict[str, object]] = []
    for name, changes in cases.items():
        shown = honest | changes
        why = refused(partial(verify_request, **shown))
        rows.append({"name": name, **shown, "body_digest": shown["body_digest"].hex(), "why": why})
    return rows


def _of_another(identity: IdentityKey, target: str) -> str:
    return sign_request(identity, "GET", target, NOW, digest(b"another body"))


def _loose(signature: str) -> str:
    """Set a bit of the last digit that stands for nothing."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = len(signature) - 3
    changed = signature[:at] + digits[digits.index(signature[at]) | 1] + signature[at + 1 :]
    if base64.b64decode(changed) != base64.b64decode(signature):
        raise RuntimeError("the bit that was set is not a spare one")
    return changed


def bodies() -> list[dict[str, object]]:
    """Return bodies of requests and answers, as they travel."""
    inbox = Inbox(
        attempt=3, state=RunState.RUNNING, reason="", after=1, frames=(FRAME, CODEC.header(honest()["the end"]))
    )
    problem = Problem(type="about:blank#refused", title="Conflict", status=409, detail="too late")
    return [
        {"kind": "Enrolment", "type": "application/json", "body": enrolment().hex()},
        {"kind": "Inbox", "type": "application/vnd.ridotto.inbox", "body": msgspec.msgpack.encode(inbox).hex()},
        {"kind": "Problem", "type": "application/problem+json", "body": msgspec.json.encode(problem).hex()},
    ]
