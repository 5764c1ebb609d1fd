"""The vectors are as the code makes them, and say what their page says."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import msgspec
import pytest

from ridotto.core.machine import COORDINATOR, Machine
from ridotto.core.wire import PREFIX, VERSION, digest
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee.messages import MASK_MESSAGES
from ridotto.secagg.protocols import PROTOCOLS
from tests.vectors.files import load
from vectors import committee, ideal, oneshot, pairwise
from vectors.make import BUILDERS, FOLDER, text
from vectors.recording import Recording

FILES = {name: load(name) for name in BUILDERS}
RECORDINGS: dict[str, Recording] = {
    "ideal.json": ideal.record(False)[0],
    "ideal-sparse.json": ideal.record(True)[0],
    "pairwise.json": pairwise.record(pairwise.COMPLETE)[0],
    "pairwise-sparse.json": pairwise.record(pairwise.SPARSE)[0],
    "committee.json": committee.record()[0],
    "committee-hybrid.json": committee.record(committee.HYBRID)[0],
    "oneshot.json": oneshot.record()[0],
}
"""The sessions that are in files."""

Frame = Callable[[dict[str, Any]], bytes]


def frame_of(name: str, number: int) -> bytes:
    """Put message `number` together as it stands in the file; only long attachments come from the recording."""
    row, (envelope, _) = FILES[name]["messages"][number], RECORDINGS[name].sent[number]
    shown = "attachment" in row or "attachment_sha256" not in row
    attachment = bytes.fromhex(row.get("attachment", "")) if shown else bytes(envelope.attachment or b"")
    return bytes.fromhex(row["header"]) + attachment


def receive(name: str, machine: Machine, number: int, now: float) -> float:
    """Give a machine one message of a file, and tell it first that time has passed."""
    row = FILES[name]["messages"][number]
    if row.get("time", 0.0) > now:
        now = row["time"]
        machine.expire(now)
    machine.receive(row["from"], RECORDINGS[name].codec.decode(frame_of(name, number), row["from"])[0], now)
    return now


def deliver(name: str, machine: Machine, to: str, first: int, last: int, now: float) -> float:
    """Give a machine the messages from `first` up to `last` that are for it."""
    messages = FILES[name]["messages"]
    for number in range(first, last):
        if to in messages[number]["to"]:
            now = receive(name, machine, number, now)
        elif messages[number].get("time", 0.0) > now:
            now = messages[number]["time"]
            machine.expire(now)
    return now


def with_lie(name: str, row: dict[str, Any]) -> bytes:
    """Put a refused message together, as the page says."""
    honest = frame_of(name, row["message"])
    length = PREFIX.size + PREFIX.unpack(honest[: PREFIX.size])[1]
    header, attachment = honest[PREFIX.size : length], honest[length:]
    body = header[: row["at"]] + bytes.fromhex(row["put"]) + header[row["at"] + row["cut"] :]
    if "attachment" in row:
        attachment = bytes.fromhex(row["attachment"])
    return bytes.fromhex(row["prefix"]) + body + attachment


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "xaynet.json" or find_spec("nacl")])
def test_the_files_are_as_the_code_makes_them(name: str) -> None:
    """If this fails, a message, derivation or refusal has changed: other implementations will disagree."""
    assert (FOLDER / name).read_text(encoding="utf-8") == text(BUILDERS[name]())


@pytest.mark.parametrize("name", BUILDERS)
def test_the_files_are_small(name: str) -> None:
    assert (FOLDER / name).stat().st_size < 400_000


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_honest_header_decodes(name: str) -> None:
    codec = RECORDINGS[name].codec
    for number, (envelope, _) in enumerate(RECORDINGS[name].sent):
        row = FILES[name]["messages"][number]
        message, attachment = codec.decode(frame_of(name, number), row["from"])
        assert (type(message).__name__, message) == (row["kind"], envelope.message)
        assert (attachment is not None) == ("attachment_sha256" in row)
        if attachment is not None:
            assert digest(attachment).hex() == row["attachment_sha256"]


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_refusal_is_refused_and_the_honest_messages_taken_after_it(name: str) -> None:
    """As the page says, from the file; machines go on as if nothing had been."""
    recording = RECORDINGS[name]
    for row in FILES[name]["refusals"]:
        to, sender = row["to"], row.get("from", FILES[name]["messages"][row["message"]]["from"])
        machine = recording.make(to)
        machine.start(0.0)
        come = row.get("after", row["message"])
        now = deliver(name, machine, to, 0, come, 0.0)
        with pytest.raises(PeerProtocolError) as refused:
            machine.receive(sender, recording.codec.decode(with_lie(name, row), sender)[0], now)
        assert (refused.value.peer, refused.value.why) == (row["blames"], row["why"]), row["name"]
        deliver(name, machine, to, come, row["message"] + 1, now)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_message_without_its_last_fields_is_refused(name: str) -> None:
    """Also where the class has a default for them: then the machine sees that they are not what they should be."""
    recording, seen = RECORDINGS[name], set()
    for number, row in enumerate(FILES[name]["messages"]):
        if row["kind"] in seen:
            continue
        seen.add(row["kind"])
        frame, to = frame_of(name, number), row["to"][0]
        length = PREFIX.size + PREFIX.unpack(frame[: PREFIX.size])[1]
        fields = msgspec.msgpack.decode(frame[PREFIX.size : length])
        for left in range(len(fields)):
            header = msgspec.msgpack.encode(fields[:left])
            lie = PREFIX.pack(VERSION, len(header)) + header + frame[length:]
            machine, now = recording.replayed(to, number)
            with pytest.raises(PeerProtocolError):
                machine.receive(row["from"], recording.codec.decode(lie, row["from"])[0], now)


@pytest.mark.parametrize("name", ["pairwise.json", "committee.json", "committee-hybrid.json", "oneshot.json"])
def test_there_are_refusals_for_everybody(name: str) -> None:
    rows = FILES[name]["refusals"]
    assert len(rows) >= 30
    assert {row["to"][0] for row in rows} >= {"p", COORDINATOR[0]}
    assert name == "pairwise.json" or "m" in {row["to"][0] for row in rows}


@pytest.mark.parametrize("name", RECORDINGS)
def test_refusals_have_names_of_their_own(name: str) -> None:
    rows = FILES[name]["refusals"]
    assert len({row["name"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", [name for name in RECORDINGS if not name.startswith("pairwise")])
def test_the_session_that_is_recorded_is_exact(name: str) -> None:
    total = [sum(column) % 2**20 for column in zip(*FILES[name]["vectors"].values(), strict=True)]
    assert FILES[name]["sum"] == total


@pytest.mark.parametrize("protocol", ["committee", *PROTOCOLS])
def test_every_message_of_every_protocol_is_sent_and_refused_in_a_file(protocol: str) -> None:
    """A message that is added to a protocol needs vectors: what it looks like, and what is not taken for one."""
    files = [name for name in RECORDINGS if FILES[name]["protocol"] == protocol]
    kinds = MASK_MESSAGES if protocol == "committee" else PROTOCOLS[protocol].messages
    sent = {row["kind"] for name in files for row in FILES[name]["messages"]}
    refused = {FILES[name]["messages"][row["message"]]["kind"] for name in files for row in FILES[name]["refusals"]}
    assert sent == {kind.__name__ for kind in kinds}
    assert refused == sent
