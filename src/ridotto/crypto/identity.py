"""Keep an identity in a file, and sign and verify requests with it: both halves of the handshake.

A request carries who sent it and that nothing in it was changed, in one header:

    Authorization: Ridotto key="<64 hex digits>", time="<unix seconds>", signature="<base64>"

Signed, in the context "request", are method, target, time and the SHA-256 of what the body says, one per line. Targets
can't contain line breaks, so no two requests are the same lines. The time limits how long a copied request can be
shown again; what it asks for must be harmless when asked twice, as all of ours is. The host is not covered, so a
request can be shown to another coordinator that admits the same key: bodies name their session, which refuses it there.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import stat
import tempfile
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ridotto.core.rng import OsRng
from ridotto.crypto.seal import IdentityKey, SignatureError, verify
from ridotto.errors import ConfigError, LocalProtocolError, ProtocolError, StorageError

FILE_LIMIT_BYTES = 4096
"""More than any Ed25519 key in PEM (about 120 bytes): who names a data set by mistake gets an error, and soon."""

TOLERANCE_S = 300.0
"""How far a request's time may be off. Five minutes is Kerberos's choice (RFC 4120, section 1.6) for the same end."""

DIGEST_BYTES = 32

_CONTEXT = "request"
_POSIX = os.name == "posix"
_METHOD = re.compile(r"[A-Z]{1,16}")
_TARGET = re.compile(r"/[\x21-\x7e]*")
_HEADER = re.compile(
    r'Ridotto key="(?P<key>[0-9a-f]{64})", time="(?P<time>0|[1-9][0-9]{0,11})", '
    r'signature="(?P<signature>[A-Za-z0-9+/]{86}==)"'
)


class RequestAuthError(ProtocolError):
    """Refuse a request whose header does not prove who sent it.

    skew_s: how many seconds the request's time is ahead of ours (negative: behind), if that is the reason.
    """

    def __init__(self, why: str, skew_s: float | None = None) -> None:
        self.skew_s = skew_s
        super().__init__(why)


def load_or_create_identity(path: Path) -> IdentityKey:
    """Return the identity in the file at `path`; make a new one and its file if there is none.

    The file is a PKCS #8 key in PEM with mode 0600. It appears whole or not at all, and if two processes make it at
    once, both get the same. Where the platform has no POSIX modes, its directory has to protect it.
    Raises ConfigError if the file can't be read or made, is no identity, or others than its owner may read or write it;
    StorageError if the disk is full.
    """
    try:
        pem = _read(path)
        if pem is None:
            _create(path, IdentityKey.generate(OsRng()))
            pem = _read(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"the identity file {path} can't be made, the disk is full: make room") from error
        raise ConfigError(f"the identity file {path} can't be used: {error.strerror or error}") from error
    if pem is None:
        raise ConfigError(f"the identity file {path} vanished as soon as it was made")
    return _parse(pem, path)


def sign_request(identity: IdentityKey, method: str, target: str, time: int, body_digest: bytes) -> str:
    """Return the value of the `Authorization` header of a request.

    method: capitals, as "POST". target: path, with "?" and query if there is one, exactly as sent. time: unix seconds.
    body_digest: SHA-256 of the body, or of the part of it that names the rest by digest.
    Raises LocalProtocolError if one of them is malformed.
    """
    signature = identity.sign(_CONTEXT, _signed_lines(method, target, time, body_digest))
    encoded = base64.b64encode(signature).decode()
    return f'Ridotto key="{identity.public.hex()}", time="{time}", signature="{encoded}"'


def verify_request(
    header: str, method: str, target: str, body_digest: bytes, now: float, *, tolerance_s: float = TOLERANCE_S
) -> bytes:
    """Return the public key (32 bytes) that signed this request; whether it is welcome is the caller's to decide.

    method, target, body_digest: of the request as received. now: this side's clock, unix seconds.
    tolerance_s: how far the two clocks may be apart, seconds.
    Raises RequestAuthError if the header is malformed, its time is off (with the seconds), or its signature is not over
    this request; all of these are the sender's fault, also a method or target that could never have been signed.
    """
    match = _HEADER.fullmatch(header)
    if match is None:
        raise RequestAuthError('the header is not: Ridotto key="...", time="...", signature="..."')
    public, time, signature = bytes.fromhex(match["key"]), int(match["time"]), _decode_signature(match["signature"])
    skew_s = time - now
    # Asked this way round, a clock that is not a number is refused too.
    if not abs(skew_s) <= tolerance_s:
        direction = "ahead of" if skew_s > 0 else "behind"
        why = f"the request's clock is {abs(skew_s):.0f} s {direction} ours, at most {tolerance_s:.0f} s are allowed"
        raise RequestAuthError(why, skew_s)
    try:
        verify(public, _CONTEXT, _signed_lines(method, target, time, body_digest), signature)
    except (SignatureError, LocalProtocolError) as error:
        raise RequestAuthError("the signature is not over this request") from error
    return public


def _read(path: Path) -> bytes | None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        # The opened file is asked, not its name: nobody can exchange it in between.
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if _POSIX and mode & 0o077:
            raise ConfigError(
                f"the identity file {path} has mode {mode:04o}, so others may read or change it: "
                f"run chmod 600 on it, or make a new identity if others may have seen it"
            )
        return file.read(FILE_LIMIT_BYTES + 1)


def _create(path: Path, identity: IdentityKey) -> None:
    """Write the file beside its place and then give it its name, which fails if the name is taken."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # O_EXCL, mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_to_pem(identity))
            file.flush()
            os.fsync(file.fileno())
        # On Windows `rename` refuses to replace; on POSIX it replaces, and `link` refuses.
        (os.link if _POSIX else os.rename)(temporary, path)
    except FileExistsError:
        pass  # Another process was faster. Its identity is as good, and is read next.
    finally:
        Path(temporary).unlink(missing_ok=True)


def _to_pem(identity: IdentityKey) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(identity.to_bytes())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _parse(pem: bytes, path: Path) -> IdentityKey:
    refusal = f"the file {path} is not a ridotto identity (an unencrypted Ed25519 key, PKCS #8 in PEM)"
    if len(pem) > FILE_LIMIT_BYTES:
        raise ConfigError(refusal)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(refusal) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(refusal)
    return IdentityKey.from_bytes(key.private_bytes_raw())


def _signed_lines(method: str, target: str, time: int, body_digest: bytes) -> bytes:
    if _METHOD.fullmatch(method) is None:
        raise LocalProtocolError(f"a method is a word in capitals, not {method!r}")
    if _TARGET.fullmatch(target) is None:
        raise LocalProtocolError("a target is a path and query in printable ASCII that starts with /")
    if not 0 <= time < 10**12:
        raise LocalProtocolError(f"a time is in unix seconds, not {time}")
    if len(body_digest) != DIGEST_BYTES:
        raise LocalProtocolError(f"a digest has {DIGEST_BYTES} bytes, not {len(body_digest)}")
    return f"{method}\n{target}\n{time}\n{body_digest.hex()}".encode()


def _decode_signature(text: str) -> bytes:
    signature = base64.b64decode(text, validate=True)
    # The last two digits have 4 bits to spare; only one spelling of a signature is accepted.
    if base64.b64encode(signature).decode() != text:
        raise RequestAuthError("the signature is not in canonical base64")
    return signature
