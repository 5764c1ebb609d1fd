"""What travels between parties: typed strict messages, with large vectors beside them.

A frame is

    version (1 byte, 0x01) | length of the header (4 bytes, little-endian) | header | attachment

The header is MessagePack: an array whose first element is the message's type and whose others are its fields
in the order of the class. Unknown types, unknown or missing fields, wrong types and lengths over their limits
are refused; fields with a default may be missing, at the end of an array. An attachment is the bytes of one large
vector; the header names it by SHA-256 and length, so that it can be checked, sent again and left out of logs. Messages
without one must have none.

The encoding is deterministic: the same message gives the same bytes, on every platform, so it can be hashed
and signed.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import Annotated, Any

import msgspec

from ridotto.errors import LocalProtocolError, PeerProtocolError, PlanError

VERSION = 1
"""The first byte of every frame. A change of any message's meaning raises it."""

PREFIX = struct.Struct("<BI")
"""Version and header length in front of every frame."""

HEADER_LIMIT = 8 << 20
"""Largest header in bytes. A complete shard of 128 needs about 25 kB; this leaves room for graphs of 10,000."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*\Z")]
"""A participant's name: 1 to 64 letters, digits and . _ @ -, the first a letter or a digit."""

NAME_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")

Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""A key, a seed or a SHA-256 digest."""

Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
"""An Ed25519 signature."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
"""A number of things: never negative, never near a machine word's end."""

LONGEST_TEXT = 1000

Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]
"""A sentence for people. Without control characters: it is shown on terminals and written to logs, where they could
forge lines. `sentence` makes one."""


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Stand above what occurs inside messages."""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True):
    """Stand above everything that crosses a border between parties."""


class Attached(Message, frozen=True, tag=True):
    """Stand above messages that bring one large vector beside them.

    digest: SHA-256 of the attachment. size: its length in bytes.
    """

    digest: Bytes32
    size: Count

    @property
    def contribution(self) -> bytes:
        """Return what stands for this message in the set of a sum, 32 bytes: the digest, unless it says otherwise."""
        return self.digest


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return SHA-256 of `data`, 32 bytes."""
    return hashlib.sha256(data).digest()


def sentence(text: object) -> str:
    """Return `text` as a `Text`: cut to its length, with spaces for what can't be printed."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text)[:LONGEST_TEXT])


class Codec:
    """Encode and decode the messages of one conversation.

    types: the message classes that may occur. attachment_limit: largest attachment in bytes.
    """

    def __init__(self, *types: type[Message], attachment_limit: int = 0) -> None:
        if not types:
            raise LocalProtocolError("a codec needs at least one message type")
        union: Any = types[0]
        for other in types[1:]:
            union = union | other
        self.types = frozenset(types)
        self.attachment_limit = attachment_limit
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(union)

    def header(self, message: Message) -> bytes:
        """Encode a message without its attachment, ready to be framed, hashed or logged."""
        if type(message) not in self.types:
            raise LocalProtocolError(f"{type(message).__name__} does not belong to this conversation")
        header = self._encoder.encode(message)
        return PREFIX.pack(VERSION, len(header)) + header

    def encode(self, message: Message, attachment: bytes | bytearray | memoryview | None = None) -> bytes:
        """Encode a message and its attachment into one frame."""
        if (attachment is not None) != isinstance(message, Attached):
            raise LocalProtocolError(f"{type(message).__name__} and its attachment do not belong together")
        return self.header(message) + (bytes(attachment) if attachment is not None else b"")

    def decode(self, frame: bytes | bytearray | memoryview, peer: str) -> tuple[Message, memoryview | None]:
        """Decode a frame that `peer` sent; the attachment is a view into it, checked against its digest.

        Raises PeerProtocolError on anything that is not exactly one well-formed frame.
        """
        message, rest = self._split(memoryview(frame), peer)
        if not isinstance(message, Attached):
            if len(rest):
                raise PeerProtocolError(peer, f"{len(rest)} bytes follow a {type(message).__name__}, none may")
            return message, None
        self._check_attachment(message, rest, peer)
        return message, rest

    def _split(self, frame: memoryview, peer: str) -> tuple[Message, memoryview]:
        if len(frame) < PREFIX.size:
            raise PeerProtocolError(peer, f"frame of {len(frame)} bytes is shorter than its prefix")
        version, length = PREFIX.unpack(frame[: PREFIX.size])
        if version != VERSION:
            raise PeerProtocolError(peer, f"wire version {version}, this side speaks {VERSION}")
        if length > HEADER_LIMIT or length > len(frame) - PREFIX.size:
            raise PeerProtocolError(peer, f"header of {length} bytes does not fit its frame")
        end = PREFIX.size + length
        return self._decode_header(frame[PREFIX.size : end], peer), frame[end:]

    def _decode_header(self, header: memoryview, peer: str) -> Message:
        try:
            return self._decoder.decode(header)
        except (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise PeerProtocolError(peer, f"malformed message: {error}") from error

    def _check_attachment(self, message: Attached, rest: memoryview, peer: str) -> None:
        if message.size > self.attachment_limit:
            raise PeerProtocolError(peer, f"attachment of {message.size} bytes, at most {self.attachment_limit}")
        if len(rest) != message.size:
            raise PeerProtocolError(peer, f"attachment has {len(rest)} bytes, its message says {message.size}")
        if digest(rest) != message.digest:
            raise PeerProtocolError(peer, "attachment does not match its digest")
