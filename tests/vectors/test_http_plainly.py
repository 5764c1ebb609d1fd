"""http.json, recomputed as docs/protocols/http.md has it; and what it says is refused, refused."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
import pytest

from ridotto.crypto.identity import verify_request
from ridotto.rounds.service import Enrolment, Inbox, Problem
from tests.vectors import plain
from tests.vectors.files import check_refusals, load

FILE = load("http.json")
BODIES = {row["kind"]: bytes.fromhex(row["body"]) for row in FILE["bodies"]}


@pytest.mark.parametrize("row", FILE["requests"], ids=lambda row: row["method"] + row["target"][:9])
def test_requests(row: dict[str, Any]) -> None:
    hashed = plain.sha256(bytes.fromhex(row["hashed"])).hex()
    assert hashed == row["body_digest"]
    public = plain.identity_of(row["private"])
    words = re.fullmatch(r'Ridotto key="(\w+)", time="(\d+)", signature="(.*)"', row["authorization"])
    assert words is not None
    assert (words[1], words[2]) == (public.hex(), str(row["time"]))
    lines = "\n".join((row["method"], row["target"], str(row["time"]), hashed)).encode()
    plain.check_signature(public, "request", lines, base64.b64decode(words[3], validate=True))
    seen = verify_request(row["authorization"], row["method"], row["target"], bytes.fromhex(hashed), row["time"] + 300)
    assert seen == public


def test_requests_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        digest = bytes.fromhex(row["body_digest"])
        verify_request(row["header"], row["method"], row["target"], digest, row["now"])

    check_refusals(FILE["request_refusals"], act)


def test_bodies() -> None:
    enrolment, problem = json.loads(BODIES["Enrolment"]), json.loads(BODIES["Problem"])
    public = plain.identity_of(load("rounds.json")["private_keys"]["p0"])
    assert enrolment == {"name": "p0", "key": public.hex(), "token": "once"}
    assert problem["type"] == "about:blank#refused"
    inbox = msgspec.msgpack.decode(BODIES["Inbox"])
    assert list(inbox) == ["attempt", "state", "reason", "after", "frames"]
    shown = {row["name"]: bytes.fromhex(row["header"]) for row in load("rounds.json")["messages"]}
    assert inbox["frames"] == [shown["no"], shown["the end"]]
    assert isinstance(msgspec.msgpack.decode(BODIES["Inbox"], type=Inbox), Inbox)
    assert msgspec.json.decode(BODIES["Enrolment"], type=Enrolment).name == "p0"
    assert msgspec.json.decode(BODIES["Problem"], type=Problem).status == 409
