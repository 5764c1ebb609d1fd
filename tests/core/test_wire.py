"""Frames: what they look like, that one message has one encoding, and what is refused with which sentence."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from ridotto.core.wire import (
    HEADER_LIMIT,
    PREFIX,
    Attached,
    Bytes32,
    Codec,
    Message,
    Name,
    Part,
    Text,
    digest,
    sentence,
)
from ridotto.errors import LocalProtocolError, PeerProtocolError


class Item(Part, frozen=True):
    name: Name
    size: int


class Note(Message, frozen=True):
    key: Bytes32
    items: tuple[Item, ...]


class Cargo(Attached, frozen=True):
    label: str = ""


class Stranger(Message, frozen=True):
    pass


CODEC = Codec(Note, Cargo, attachment_limit=10)
NOTE = Note(b"k" * 32, (Item("p000", 3),))


def cargo(data: bytes) -> Cargo:
    return Cargo(digest=digest(data), size=len(data), label="x")


def framed(header: bytes, rest: bytes = b"") -> bytes:
    return PREFIX.pack(1, len(header)) + header + rest


def test_a_frame_byte_by_byte() -> None:
    """Version, little-endian length, then MessagePack: [type, key, [[name, size]]]."""
    header = b"\x93\xa4Note\xc4\x20" + b"k" * 32 + b"\x91\x92\xa4p000\x03"
    assert CODEC.encode(NOTE) == b"\x01" + len(header).to_bytes(4, "little") + header


def test_an_attachment_follows_the_header_and_is_named_by_it() -> None:
    frame = CODEC.encode(cargo(b"abc"), b"abc")
    header = b"\x94\xa5Cargo\xc4\x20" + hashlib.sha256(b"abc").digest() + b"\x03\xa1x"
    assert frame == framed(header, b"abc")
    assert CODEC.header(cargo(b"abc")) == framed(header)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_messages_come_back(kind: type) -> None:
    message, attachment = CODEC.decode(kind(CODEC.encode(cargo(b"abc"), memoryview(b"abc"))), "p")
    assert message == cargo(b"abc")
    assert bytes(attachment or b"") == b"abc"
    assert CODEC.decode(kind(CODEC.encode(NOTE)), "p") == (NOTE, None)


def test_the_attachment_is_a_view_and_not_a_copy() -> None:
    frame = bytearray(CODEC.encode(cargo(b"abc"), b"abc"))
    _, attachment = CODEC.decode(frame, "p")
    frame[-1] = ord("z")
    assert bytes(attachment or b"") == b"abz"


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "frame of 0 bytes is shorter than its prefix"),
        (b"\x01\x00\x00\x00", "frame of 4 bytes is shorter than its prefix"),
        (b"\x02" + CODEC.encode(NOTE)[1:], "wire version 2, this side speaks 1"),
        (PREFIX.pack(1, 2) + b"\x90", "header of 2 bytes does not fit its frame"),
        (PREFIX.pack(1, 2**32 - 1) + b"\x90", "header of 4294967295 bytes does not fit"),
        (PREFIX.pack(1, HEADER_LIMIT + 1) + bytes(HEADER_LIMIT + 1), "does not fit its frame"),
        (framed(b""), "malformed message"),
        (framed(b"\x90"), "malformed message"),
        (framed(b"\x91\xa8Stranger"), "malformed message: Invalid value 'Stranger'"),
        (framed(b"\x92\xa4Note\xc4\x20" + b"k" * 32), "malformed message"),
        (framed(b"\x94\xa4Note\xc4\x20" + b"k" * 32 + b"\x90\x01"), "malformed message"),
        (framed(b"\x93\xa4Note\xc4\x1f" + b"k" * 31 + b"\x90"), "length >= 32"),
        (framed(b"\x93\xa4Note\xc4\x20" + b"k" * 32 + b"\x91\x92\xa2-a\x03"), "matching regex"),
        (framed(b"\x93\xa4Note\xc4\x20" + b"k" * 32 + b"\x91\x92\xa1a\xa1b"), "Expected `int`, got `str`"),
        (framed(b"\x93\xa4Note\xc4\x20" + b"k" * 32 + b"\x91\x92\xa1\xff\x01"), "malformed message"),
        (framed(b"\x93" * 100_000), "malformed message"),
        (framed(CODEC.encode(NOTE)[5:] + b"\xc0"), "malformed message"),
        (CODEC.encode(NOTE) + b"!", "1 bytes follow a Note, none may"),
        (CODEC.encode(cargo(b"abc"), b"abc")[:-1], "attachment has 2 bytes, its message says 3"),
        (CODEC.encode(cargo(b"abc"), b"abc") + b"d", "attachment has 4 bytes, its message says 3"),
        (CODEC.encode(cargo(b"abc"), b"abd"), "attachment does not match its digest"),
        (CODEC.encode(cargo(b"a" * 11), b"a" * 11), "attachment of 11 bytes, at most 10"),
        (framed(b"\x94\xa5Cargo\xc4\x20" + bytes(32) + b"\xff\xa1x"), "malformed message"),
    ],
)
def test_refuses_by_name_and_with_a_reason(frame: bytes, why: str) -> None:
    with pytest.raises(PeerProtocolError, match=why) as refusal:
        CODEC.decode(frame, "p007")
    assert refusal.value.peer == "p007"


@pytest.mark.parametrize("name", ["a", "A9", "a.b_c@d-e", "x" * 64])
def test_names_that_may_be(name: str) -> None:
    assert msgspec.convert([name, 1], Item).name == name


@pytest.mark.parametrize("name", ["", "x" * 65, "-a", ".a", "a b", "a/b", "é", "a\x00"])
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert([name, 1], Item)


def test_a_name_does_not_end_in_a_line_break() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(["a\n", 1], Item)


def test_our_own_mistakes_are_told_apart() -> None:
    with pytest.raises(LocalProtocolError, match="Stranger does not belong to this conversation"):
        CODEC.header(Stranger())
    for message, attachment in ((NOTE, b"abc"), (cargo(b"abc"), None)):
        with pytest.raises(LocalProtocolError, match="and its attachment do not belong together"):
            CODEC.encode(message, attachment)
    with pytest.raises(LocalProtocolError, match="needs at least one message type"):
        Codec()


def test_a_codec_of_one_type_and_no_attachments() -> None:
    codec = Codec(Cargo)
    assert codec.decode(codec.encode(cargo(b""), b""), "p")[0] == cargo(b"")
    with pytest.raises(PeerProtocolError, match="attachment of 1 bytes, at most 0"):
        codec.decode(codec.encode(cargo(b"a"), b"a"), "p")


def test_sentences_have_no_control_characters() -> None:
    """A reason is shown on terminals: it must not move their cursors or forge lines."""
    assert sentence("bad\x1b[2J\nworse\u2028end") == "bad [2J worse end"
    assert len(sentence("x" * 5000)) == 1000
    for text in ("a\nb", "\x1b[2J", "\x7f", "\x9b2J", "\u2028", "x\n"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(text, Text)
    assert msgspec.convert("größer als π, «so»", Text)
