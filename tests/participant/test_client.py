"""Tests of the client: what it sends, how long it tries, and what it says when it gives up."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import msgspec
import pytest

from ridotto.core.wire import digest
from ridotto.crypto.identity import verify_request
from ridotto.errors import ConfigError, PeerProtocolError, RefusedError, UnreachableError
from ridotto.participant.client import (
    PIECE_BYTES,
    AttemptOverError,
    Client,
    MessageRefusedError,
    normal_url,
)
from tests.participant.bench import Bench
from tests.participant.fake import ME, URL, FakeClock, FakeCoordinator, key, problem


def client_of(handler: Any, clock: FakeClock | None = None, **options: Any) -> Client:
    clock = clock or FakeClock()
    return Client(URL, key(ME), clock=clock.clock(), transport=httpx.MockTransport(handler), **options)


def answers(*responses: httpx.Response | Exception) -> Any:
    """Answer one request after another; the last answer is repeated."""
    queue = list(responses)

    def handle(request: httpx.Request) -> httpx.Response:
        response = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(response, Exception):
            raise response
        return response

    return handle


class Wire(httpx.BaseTransport):
    """Look at a request as a socket would: piece by piece."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.headers = request.headers
        self.sizes = [len(piece) for piece in request.stream]
        return httpx.Response(204)


def test_signs_what_the_service_says_is_signed(tmp_path):
    fake = FakeCoordinator()
    with Bench(tmp_path, fake).client() as client:
        client.enrol(ME)
        client.enrol(ME)
        assert client.inbox(0, 0).attempt == 1
    assert list(fake.enrolled.values()) == [ME]


def test_uploads_in_pieces_with_a_length_and_a_signature_over_the_header():
    wire = Wire()
    clock = FakeClock()
    attachment = memoryview(bytearray(2 * PIECE_BYTES + 1))
    with Client(URL, key(ME), clock=clock.clock(), transport=wire) as client:
        client.send(7, b"header", attachment)
        assert client.traffic.sent_bytes == 6 + 2 * PIECE_BYTES + 1
    headers = wire.headers
    assert wire.sizes == [6, PIECE_BYTES, PIECE_BYTES, 1]
    assert headers["Content-Length"] == str(6 + 2 * PIECE_BYTES + 1)
    assert "Transfer-Encoding" not in headers
    target = "/v1/messages?attempt=7"
    assert verify_request(headers["Authorization"], "POST", target, digest(b"header"), clock.now) == key(ME).public


def test_a_prefix_before_the_interface_is_not_signed():
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/fl/v1/messages"
        verify_request(request.headers["Authorization"], "POST", "/v1/messages?attempt=1", digest(b"x"), clock.now)
        return httpx.Response(204)

    clock = FakeClock()
    with Client(URL + "/fl/", key(ME), clock=clock.clock(), transport=httpx.MockTransport(handle)) as client:
        client.send(1, b"x")


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("connection refused"),
        httpx.ReadTimeout("timed out"),
        httpx.RemoteProtocolError("server disconnected"),
        *(problem(status, "not now") for status in (408, 429, 500, 502, 503, 504, 507)),
    ],
    ids=str,
)
def test_tries_again_when_the_answer_is_not_now(failure):
    clock = FakeClock()
    with client_of(answers(failure, failure, httpx.Response(204)), clock) as client:
        client.send(1, b"x")
    assert len(clock.slept) == 2


def test_waits_longer_each_time_and_never_longer_than_its_patience():
    clock = FakeClock()
    began = clock.now
    client = client_of(answers(httpx.ConnectError("refused")), clock, patience_s=120.0)
    with client, pytest.raises(UnreachableError):
        client.federation()
    bounds = [0.25 * 2**n for n in range(6)]
    for slept, bound in zip(clock.slept, bounds, strict=False):
        assert bound / 2 <= slept <= bound
    assert max(clock.slept) <= 15.0
    assert 100.0 < clock.now - began <= 120.0


def test_gives_up_with_one_clear_sentence():
    client = client_of(answers(httpx.ConnectError("[Errno 111] Connection refused")), patience_s=0.0)
    with client, pytest.raises(UnreachableError) as caught:
        client.federation()
    assert str(caught.value) == (
        "the coordinator at http://coordinator.test can't be reached since 2023-11-14 22:13:20 UTC "
        "(1 try; the last one: [Errno 111] Connection refused): check that it runs and that this machine can connect "
        "to it, then start again; an open round goes on from its state file"
    )


@pytest.mark.parametrize(
    ("why", "hint"),
    [
        (
            "[SSL: WRONG_VERSION_NUMBER] wrong version number",
            "may have to begin with http://, then start",
        ),
        ("illegal request line", "may have to begin with https://"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert", "asks for a client certificate"),
    ],
)
def test_says_what_a_failed_handshake_means(why, hint):
    client = client_of(answers(httpx.ConnectError(why)), patience_s=0.0)
    with client, pytest.raises(UnreachableError, match=hint):
        client.federation()


def test_a_certificate_that_is_not_trusted_is_not_tried_again():
    cause = ssl.SSLCertVerificationError("certificate verify failed")
    cause.verify_message = "self-signed certificate"
    failure = httpx.ConnectError("certificate verify failed")
    failure.__cause__ = cause
    clock = FakeClock()
    with client_of(answers(failure), clock) as client, pytest.raises(UnreachableError) as caught:
        client.federation()
    assert "shows a certificate that is not trusted (self-signed certificate): give the certificate" in str(
        caught.value
    )
    assert clock.slept == []


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (401, RefusedError, "the coordinator at http://coordinator.test refuses this participant: no"),
        (403, RefusedError, "the coordinator at http://coordinator.test refuses this participant: no"),
        (409, MessageRefusedError, "the coordinator refuses what was asked: no"),
        (413, MessageRefusedError, "the coordinator refuses what was asked: no"),
        (410, AttemptOverError, "the attempt is over: no"),
        (501, RefusedError, "the coordinator at http://coordinator.test answered POST /v1/messages with 501: no"),
    ],
)
def test_a_refusal_gives_the_coordinators_reason(status, kind, sentence):
    with client_of(answers(problem(status, "no"))) as client, pytest.raises(RefusedError) as caught:
        client.send(1, b"x")
    assert type(caught.value) is kind
    assert str(caught.value) == sentence


def test_a_name_that_is_taken_is_a_refusal():
    with client_of(answers(problem(409, "the name me is taken"))) as client, pytest.raises(RefusedError) as caught:
        client.enrol(ME)
    assert type(caught.value) is RefusedError
    assert str(caught.value).endswith("refuses what was asked: the name me is taken")


def test_a_reason_can_not_write_to_the_terminal():
    client = client_of(answers(problem(403, "no\x1b[2J\nroot#" + "x" * 5000)))
    with client, pytest.raises(RefusedError) as caught:
        client.enrol(ME)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200


def test_a_refusal_without_a_problem_document_names_the_status():
    with client_of(answers(httpx.Response(404, text="<html>"))) as client, pytest.raises(RefusedError) as caught:
        client.federation()
    assert str(caught.value) == (
        "the coordinator at http://coordinator.test answered GET /v1/federation with 404: "
        "Not Found (these are no coordinator's words: check the URL)"
    )


def test_an_answer_that_is_too_long_is_cut_short():
    client = client_of(answers(httpx.Response(200, content=bytes(1001))))
    with client, pytest.raises(PeerProtocolError, match="is longer than 1000 bytes"):
        client.model(bytes(32), 1000)


def test_a_model_must_have_the_digest_it_was_asked_for_by():
    with client_of(answers(httpx.Response(200, content=b"model"))) as client:
        assert client.model(digest(b"model"), 100) == b"model"
        with pytest.raises(PeerProtocolError, match="the model that it sent is not 0000000000000000, as announced"):
            client.model(bytes(32), 100)


def test_a_model_that_is_not_there_is_the_coordinators_fault():
    client = client_of(answers(problem(404, "no such model")))
    with client, pytest.raises(PeerProtocolError, match="does not have the model that it announced: the coordinator r"):
        client.model(bytes(32), 100)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"name": 1}', b"\xff" * 9, b"[" * 100_000])
def test_malformed_answers_are_the_coordinators_fault(body):
    with client_of(answers(httpx.Response(200, content=body))) as client:
        for ask in (client.federation, lambda: client.inbox(1, 0), lambda: client.record(1)):
            with pytest.raises(PeerProtocolError, match="is malformed"):
                ask()


def test_reads_a_record_that_verifies(tmp_path):
    fake = FakeCoordinator(rounds=1)
    with Bench(tmp_path, fake).client() as client:
        client.enrol(ME)
        fake.begin()
        fake._let_something_happen(1, 1)
        client.record(1).check(fake.identity.public)


def test_counts_what_goes_to_and_fro():
    body = msgspec.json.encode({"status": "ok"})
    with client_of(answers(problem(503, "wait"), httpx.Response(204, content=body))) as client:
        client.send(1, b"12345")
        assert client.traffic.sent_bytes == 10
        assert client.traffic.received_bytes > len(body)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://localhost:8000/", "http://localhost:8000"),
        ("HTTPS://FL.Example.org", "https://fl.example.org"),
        ("https://example.org/fl/", "https://example.org/fl"),
    ],
)
def test_one_spelling_for_a_coordinator(url, normal):
    assert normal_url(url) == normal


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host", "http://", "http://a?b=c", "http://u:p@host", "", "\x00"]
)
def test_refuses_what_is_no_coordinators_url(url):
    with pytest.raises(ConfigError):
        normal_url(url)


def test_certificate_files_that_can_not_be_used_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"the certificate files .*none\.pem can't be used: No such file"):
        Client(URL, key(ME), ca=tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"the certificate files .*bad\.pem, .*bad\.pem can't be used"):
        Client(URL, key(ME), certificate=(tmp_path / "bad.pem", tmp_path / "bad.pem"))
