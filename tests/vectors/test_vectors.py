"""The vectors are as the code makes them, and say what their page says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import PREFIX, digest
from ridotto.errors import PeerProtocolError
from vectors import committee, oneshot
from vectors.make import BUILDERS, FOLDER, text
from vectors.recording import Recording

FILES = {name: json.loads((FOLDER / name).read_text(encoding="utf-8")) for name in BUILDERS}
RECORDINGS: dict[str, Recording] = {"committee.json": committee.record()[0], "oneshot.json": oneshot.record()[0]}
MAKERS: dict[str, Callable[[str], Any]] = {"committee.json": committee.machine, "oneshot.json": oneshot.machine}


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_as_the_code_makes_them(name: str) -> None:
    """If this fails, a message, derivation or refusal has changed: other implementations will disagree."""
    assert (FOLDER / name).read_text(encoding="utf-8") == text(BUILDERS[name]())


@pytest.mark.parametrize("name", FILES)
def test_every_honest_header_decodes(name: str) -> None:
    codec = RECORDINGS[name].codec
    for row, (envelope, _) in zip(FILES[name]["messages"], RECORDINGS[name].sent, strict=True):
        frame = bytes.fromhex(row["header"]) + bytes(envelope.attachment or b"")
        message, attachment = codec.decode(frame, row["from"])
        assert (type(message).__name__, message) == (row["kind"], envelope.message)
        if attachment is not None:
            assert digest(attachment).hex() == row["attachment_sha256"]


@pytest.mark.parametrize("name", FILES)
def test_every_refusal_is_refused_and_the_honest_message_taken_after_it(name: str) -> None:
    """As the page says, from the file; machines go on as if nothing had been."""
    recording, messages = RECORDINGS[name], FILES[name]["messages"]
    for row in FILES[name]["refusals"]:
        machine = MAKERS[name](row["to"])
        machine.start(0.0)
        for earlier, receivers in recording.sent[: row["message"]]:
            if row["to"] in receivers:
                machine.receive(earlier.sender, earlier.message, 0.0)
        honest = bytes.fromhex(messages[row["message"]]["header"])[PREFIX.size :]
        body = honest[: row["at"]] + bytes.fromhex(row["put"]) + honest[row["at"] + row["cut"] :]
        envelope = recording.sent[row["message"]][0]
        frame = bytes.fromhex(row["prefix"]) + body + bytes(envelope.attachment or b"")
        with pytest.raises(PeerProtocolError) as refused:
            machine.receive(envelope.sender, recording.codec.decode(frame, envelope.sender)[0], 0.0)
        assert (refused.value.peer, refused.value.why) == (row["blames"], row["why"])
        machine.receive(envelope.sender, envelope.message, 0.0)


@pytest.mark.parametrize("name", FILES)
def test_there_are_refusals_for_everybody(name: str) -> None:
    rows = FILES[name]["refusals"]
    assert len(rows) >= 30
    assert len({row["name"] for row in rows}) == len(rows)
    assert {row["to"][0] for row in rows} == {"p", "m", COORDINATOR[0]}


def test_the_session_that_is_recorded_is_exact() -> None:
    for name, file in FILES.items():
        total = [sum(column) % 2**20 for column in zip(*file["vectors"].values(), strict=True)]
        assert file["sum"] == total, name
