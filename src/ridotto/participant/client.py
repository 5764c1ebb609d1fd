"""The participant's side of the HTTP interface (`rounds.service`): the only module that imports httpx.

Every request may be sent twice: what it asks for is harmless when asked again, and so a connection that breaks, a
time-out and a server that is overloaded are answered with the same request, until patience is at its end.
What the coordinator answers is checked here for its form and its size; what it means is for others to judge.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from ridotto.core.machine import COORDINATOR, Buffer
from ridotto.core.wire import HEADER_LIMIT, digest, sentence
from ridotto.crypto.identity import sign_request
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import ConfigError, MissingExtraError, PeerProtocolError, PlanError, RefusedError, UnreachableError
from ridotto.participant.notes import NotThereError
from ridotto.participant.patience import Clock, Patience
from ridotto.rounds.inclusion import Inclusion
from ridotto.rounds.receipt import LARGEST_RECEIPT
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.service import (
    FEDERATION_PATH,
    FRAME_TYPE,
    INBOX_PATH,
    LONGEST_WAIT_S,
    MESSAGES_PATH,
    MODELS_PATH,
    PARTICIPANTS_PATH,
    PROOF_PART,
    RECEIPT_PART,
    ROUNDS_PATH,
    Enrolment,
    FederationInfo,
    Inbox,
    Problem,
)

try:
    import httpx
except ModuleNotFoundError as error:
    raise MissingExtraError("httpx", "client") from error

PATIENCE_S = 300.0
"""How long a coordinator may be away before a participant gives up: enough for a restart, short of a night."""

ANSWER_TIMEOUT_S = 60.0
"""For an answer to begin, beyond the time that a long poll may take."""

CONNECT_TIMEOUT_S = 10.0

PIECE_BYTES = 256 << 10
"""An upload goes out in pieces of this size: one small copy at a time instead of the whole vector."""

SMALL_ANSWER_BYTES = 8 << 20
"""Largest JSON answer: a federation, a list of records, a problem."""

INBOX_BYTES = 8 * HEADER_LIMIT
"""Largest inbox: a participant gets at most six frames in an attempt."""

RETRIED = frozenset({408, 429, 500, 502, 503, 504, 507})
"""Answers that say "not now" and not "no": a body that came too slowly, too many at once, a mistake or a full disk that
its operator will see to, a proxy without a server."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

T = TypeVar("T")


class AttemptOverError(RefusedError):
    """Report that the attempt that a message was for is over; the participant goes on with the next one."""


class MessageRefusedError(RefusedError):
    """Report that the coordinator refused one message of ours: it was late, or did not hold."""


@dataclass
class Traffic:
    """Count bytes of bodies, without headers and TLS; repeated tries count again."""

    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True)
class _Call:
    """One request that can be sent again and again. signed: the part of the body that the signature covers."""

    method: str
    target: str
    parts: tuple[Buffer, ...] = field(default=(), repr=False)
    signed: bytes | None = field(default=None, repr=False)
    content_type: str = ""
    limit_bytes: int = SMALL_ANSWER_BYTES
    wait_s: float = 0.0


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytearray = field(repr=False)


class Client:
    """Speak to one coordinator as one participant.

    url: where the coordinator is, as "https://fl.example.org". identity: signs requests. ca: a PEM file with the
    certificates to trust instead of the usual ones. certificate: (certificate, key) PEM files that prove who this
    client is to a TLS endpoint that asks. patience_s: how long to try again, seconds. wait_s: how long a long poll may
    take. transport: what carries requests, for tests.

    Signatures cover the path as `rounds.service` spells it: a proxy may put the interface below a prefix and must
    take the prefix off. Proxies that the environment names are used for hosts other than this machine.
    Raises ConfigError if the URL or a certificate file can't be used.
    """

    def __init__(
        self,
        url: str,
        identity: IdentityKey,
        *,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        patience_s: float = PATIENCE_S,
        timeout_s: float = ANSWER_TIMEOUT_S,
        wait_s: float = LONGEST_WAIT_S,
        clock: Clock | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = normal_url(url)
        self.traffic = Traffic()
        self._identity = identity
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._clock = clock or Clock()
        local = httpx.URL(self.url).host in LOOPBACK
        self._http = httpx.Client(verify=_tls(ca, certificate), trust_env=not local, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def federation(self) -> FederationInfo:
        """Ask what is trained, by which plan, under whose key. Nothing in the answer is signed."""
        return _decoded(self._ask(_Call("GET", FEDERATION_PATH)), FederationInfo)

    def enrol(self, name: str, token: str = "") -> None:
        """Enrol this identity under `name`; asking again does no harm.

        Raises RefusedError if the name is taken, or the token is used or unknown.
        """
        enrolment = Enrolment(name=name, key=self._identity.public.hex(), token=token)
        body = msgspec.json.encode(enrolment)
        self._ask(_Call("POST", PARTICIPANTS_PATH, (body,), signed=body, content_type="application/json"))

    def inbox(self, attempt: int, after: int) -> Inbox:
        """Wait for frames of `attempt` beyond the first `after` ones."""
        target = f"{INBOX_PATH}?attempt={attempt}&after={after}&wait={self._wait_s:g}"
        call = _Call("GET", target, signed=b"", limit_bytes=INBOX_BYTES, wait_s=self._wait_s)
        return _decoded(self._ask(call), Inbox, json=False)

    def send(
        self, attempt: int, header: bytes, attachment: Buffer | None = None, *, patience_s: float | None = None
    ) -> None:
        """Send one frame; on return it is durable. header: of `Codec.header`. patience_s: another than the client's.

        Raises AttemptOverError if the attempt is over, MessageRefusedError if the coordinator refuses the frame.
        """
        parts = (header,) if attachment is None else (header, attachment)
        call = _Call("POST", f"{MESSAGES_PATH}?attempt={attempt}", parts, signed=header, content_type=FRAME_TYPE)
        self._ask(call, patience_s)

    def model(self, sha256: bytes, limit_bytes: int) -> bytearray:
        """Fetch the model file with this digest, which is checked; limit_bytes: the largest that can be right.

        Raises PeerProtocolError if the coordinator does not have it, or sends another one or a larger one.
        """
        try:
            body = self._ask(_Call("GET", f"{MODELS_PATH}/{sha256.hex()}", limit_bytes=limit_bytes))
        except MessageRefusedError as error:
            raise PeerProtocolError(COORDINATOR, f"it does not have the model that it announced: {error}") from error
        if digest(body) != sha256:
            raise PeerProtocolError(COORDINATOR, f"the model that it sent is not {sha256.hex()[:16]}, as announced")
        return body

    def model_since(self, held: bytes, sha256: bytes, limit_bytes: int) -> bytearray:
        """Fetch what makes the model file with digest `sha256` of the one with digest `held`; or the whole file.

        Which of the two it is, and whether it holds, is for the caller to find out: nothing is checked but its size.
        Raises PeerProtocolError if the coordinator does not have the model, or sends something larger.
        """
        try:
            return self._ask(_Call("GET", f"{MODELS_PATH}/{sha256.hex()}?from={held.hex()}", limit_bytes=limit_bytes))
        except MessageRefusedError as error:
            raise PeerProtocolError(COORDINATOR, f"it does not have the model that it announced: {error}") from error

    def record(self, number: int) -> SignedRecord:
        """Fetch the signed record of round `number`; its signature is not checked here."""
        return _decoded(self._ask(_Call("GET", f"{ROUNDS_PATH}/{number}")), SignedRecord)

    def receipt(self, number: int, attempt: int) -> bytes:
        """Fetch the receipt of an attempt at round `number`, without names; nothing in it is checked here.

        Raises NotThereError if there is none.
        """
        target = f"{ROUNDS_PATH}/{number}{RECEIPT_PART}?attempt={attempt}"
        return bytes(self._ask(_Call("GET", target, limit_bytes=LARGEST_RECEIPT)))

    def proof(self, number: int, sid: bytes) -> Inclusion:
        """Fetch the proof that our contribution is in the sum of a session; it is not checked here.

        Raises NotThereError if the coordinator says that it is not.
        """
        target = f"{ROUNDS_PATH}/{number}{PROOF_PART}?session={sid.hex()}"
        return _decoded(self._ask(_Call("GET", target, signed=b"")), Inclusion)

    def _ask(self, call: _Call, patience_s: float | None = None) -> bytearray:
        """Send a request until it is answered with yes or no; return the body of the answer."""
        patience = Patience(self.url, self._patience_s if patience_s is None else patience_s, self._clock)
        while True:
            try:
                answer = self._exchange(call)
            except httpx.TransportError as error:
                self._refuse_stranger(error)
                why = str(error) or type(error).__name__
            else:
                if answer.status < 300:
                    return answer.body
                if answer.status not in RETRIED:
                    raise self._refusal(call, answer)
                why = f"it answered {answer.status}, {_detail(answer)}"
            patience.wait(why)

    def _exchange(self, call: _Call) -> _Answer:
        read_s = self._timeout_s + call.wait_s
        timeout = httpx.Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S, read=read_s)
        body = bytearray()
        with self._http.stream(
            call.method,
            self.url + call.target,
            content=self._cut(call.parts) if call.parts else None,
            headers=self._headers(call),
            timeout=timeout,
        ) as response:
            for piece in response.iter_bytes():
                self.traffic.received_bytes += len(piece)
                body += piece
                if len(body) > call.limit_bytes:
                    why = f"its answer to {call.method} {call.target} is longer than {call.limit_bytes} bytes"
                    raise PeerProtocolError(COORDINATOR, why)
            return _Answer(response.status_code, body)

    def _headers(self, call: _Call) -> dict[str, str]:
        # Models and masked vectors do not compress, and an answer that can't expand is easier to bound.
        headers = {"Accept-Encoding": "identity"}
        if call.parts:
            headers["Content-Length"] = str(sum(memoryview(part).nbytes for part in call.parts))
            headers["Content-Type"] = call.content_type
        if call.signed is not None:
            # Signed anew for every try: a signature is only good for some minutes.
            now = int(self._clock.wall())
            headers["Authorization"] = sign_request(self._identity, call.method, call.target, now, digest(call.signed))
        return headers

    def _cut(self, parts: tuple[Buffer, ...]) -> Iterator[bytes]:
        for part in parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), PIECE_BYTES):
                piece = bytes(view[start : start + PIECE_BYTES])
                self.traffic.sent_bytes += len(piece)
                yield piece

    def _refuse_stranger(self, error: BaseException) -> None:
        """Raise UnreachableError if the cause is a certificate: trying again would not make it better."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise UnreachableError(
                    f"the coordinator at {self.url} shows a certificate that is not trusted ({cause.verify_message}): "
                    "give the certificate of the authority that issued it as `ca`, or check the URL"
                ) from error
            cause = cause.__cause__ or cause.__context__

    def _refusal(self, call: _Call, answer: _Answer) -> RefusedError:
        detail = _detail(answer)
        if answer.status in (401, 403):
            return RefusedError(f"the coordinator at {self.url} refuses this participant: {detail}")
        if answer.status == 410:
            return AttemptOverError(f"the attempt is over: {detail}")
        if call.target.startswith((MESSAGES_PATH, MODELS_PATH)) and 400 <= answer.status < 500:
            return MessageRefusedError(f"the coordinator refuses what was asked: {detail}")
        if answer.status == 404 and call.target.partition("?")[0].endswith((RECEIPT_PART, PROOF_PART)):
            return NotThereError(detail)
        if answer.status == 409:
            return RefusedError(f"the coordinator at {self.url} refuses what was asked: {detail}")
        return RefusedError(
            f"the coordinator at {self.url} answered {call.method} {call.target.partition('?')[0]} with "
            f"{answer.status}: {detail}"
        )


def normal_url(url: str) -> str:
    """Return a coordinator's URL in the one spelling that is used for it everywhere.

    Raises ConfigError if it is not an http or https URL without query.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment or parsed.userinfo:
        raise ConfigError(f"{url!r} is not a coordinator's URL: expected one like https://fl.example.org:8443")
    return str(parsed).rstrip("/")


def _tls(ca: Path | None, certificate: tuple[Path, Path] | None) -> ssl.SSLContext | bool:
    if ca is None and certificate is None:
        return True
    try:
        context = ssl.create_default_context(cafile=ca) if ca is not None else httpx.create_ssl_context()
        if certificate is not None:
            context.load_cert_chain(*certificate)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (ca, *(certificate or ())) if path is not None)
        raise ConfigError(f"the certificate files {files} can't be used: {error.strerror or error}") from error
    return context


def _decoded(body: bytearray, kind: type[T], *, json: bool = True) -> T:
    decode: Any = msgspec.json.decode if json else msgspec.msgpack.decode
    try:
        result: T = decode(body, type=kind)
    except (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise PeerProtocolError(COORDINATOR, f"its {kind.__name__} is malformed: {error}") from error
    return result


def _detail(answer: _Answer) -> str:
    """Return the reason that an answer gives, made fit for a terminal: it comes from the other side."""
    try:
        text = msgspec.json.decode(answer.body, type=Problem).detail
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        phrase = httpx.codes.get_reason_phrase(answer.status) or "no reason given"
        text = f"{phrase} (these are no coordinator's words: check the URL)"
    return sentence(text)
