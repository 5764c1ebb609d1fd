"""Real processes and real TLS: the same answers, strangers are refused, and a party that dies is named."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ridotto import infer
from ridotto.core.machine import Effect
from ridotto.core.rng import OsRng
from ridotto.core.wire import Message
from ridotto.crypto.certificates import make_certificate
from ridotto.errors import ConfigError, PeerProtocolError, UnreachableError
from ridotto.infer import reference
from ridotto.infer.children import ProcessLink
from ridotto.infer.dealer import Dealer
from ridotto.infer.host import Place, Settings, make_service
from ridotto.infer.messages import Prepare
from ridotto.infer.party import Limits, Party
from ridotto.infer.service import Service
from ridotto.infer.tls import Contact, Identity, Pins
from tests.infer.models import dense, inputs, tiny_images

NAMES = ("alice", "bob", "dealer", "carol", "mallory")


def test_answers_from_three_processes_and_a_party_that_dies() -> None:
    graph = tiny_images()
    x = inputs(graph, 5)
    with infer.processes() as world:
        secret_model = world.share(graph)
        np.testing.assert_array_equal(secret_model.predict(x), reference.forward(graph, x).argmax(axis=1))
        link = world._link
        assert isinstance(link, ProcessLink)
        secret_model.prepare(5)
        link.children["party-1"].kill()
        link.children["party-1"].wait()
        with pytest.raises((UnreachableError, PeerProtocolError), match="party-1"):
            secret_model.predict(x)
    assert all(child.poll() is not None for child in link.children.values())


class Deployment:
    """Parties and dealer in threads of this process, each with its own socket and certificate."""

    def __init__(self, folder: Path, limits: Limits | None = None, dealer: type[Dealer] = Dealer) -> None:
        self.paths = {name: make_certificate(name, folder) for name in NAMES}
        listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in NAMES[:3]}
        self.contacts = {
            name: Contact(name, "127.0.0.1", listeners[name].getsockname()[1] if name in listeners else 0, paths[0])
            for name, paths in self.paths.items()
            if name != "mallory"
        }
        machines = {
            "alice": Party(first=True, peer="bob", dealer="dealer", clients=("carol",), limits=limits),
            "bob": Party(first=False, peer="alice", dealer="dealer", clients=("carol",), limits=limits),
            "dealer": dealer(("alice", "bob"), ("carol",), OsRng()),
        }
        calls = {"alice": (), "bob": ("alice",), "dealer": ("alice", "bob")}
        self.services = {}
        for name, machine in machines.items():
            others = {other: contact for other, contact in self.contacts.items() if other != name}
            service = Service(machine, self.identity(name), others, listeners[name], calls[name])  # type: ignore[arg-type]
            self.services[name] = service
        self.threads = {name: threading.Thread(target=service.run) for name, service in self.services.items()}
        for thread in self.threads.values():
            thread.start()

    def identity(self, name: str) -> Identity:
        return Identity(name, *self.paths[name])

    def connect(self, name: str = "carol", timeout_s: float = 10.0) -> infer.World:
        parties = self.contacts["alice"], self.contacts["bob"]
        return infer.connect(self.identity(name), parties, self.contacts["dealer"], timeout_s=timeout_s)

    def stop(self, name: str) -> None:
        self.services[name].stop()
        self.threads[name].join()

    def close(self) -> None:
        for service in self.services.values():
            service.stop()
        for thread in self.threads.values():
            thread.join()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    running = Deployment(tmp_path_factory.mktemp("deployment"))
    yield running
    running.close()


def test_answers_over_tls_and_after_a_reconnection(deployment: Deployment) -> None:
    graph = dense(8, 6, 3)
    x = inputs(graph, 4)
    expected = reference.forward(graph, x)
    for _ in range(2):
        with deployment.connect() as world:
            secret_model = world.share(graph)
            assert np.abs(secret_model(world.share(x)).reveal() - expected).max() < 0.005


def test_openings_larger_than_any_buffer(deployment: Deployment) -> None:
    """Both parties send 4 MB at the same time; neither waits for the other to read first."""
    graph = dense(64, 4)
    x = inputs(graph, 8192)
    with deployment.connect() as world:
        classes = world.share(graph).predict(x)
    expected = reference.forward(graph, x)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 0.01
    np.testing.assert_array_equal(classes[clear], expected.argmax(axis=1)[clear])


def test_a_stranger_is_refused(deployment: Deployment) -> None:
    with pytest.raises(UnreachableError), deployment.connect("mallory", timeout_s=1.0) as world:
        world.share(dense(4, 2))


def test_a_client_knows_who_answers(deployment: Deployment) -> None:
    """Party 1's address under party 0's name: another certificate than the pinned one answers there."""
    alice, bob = deployment.contacts["alice"], deployment.contacts["bob"]
    wrong = Contact("alice", bob.host, bob.port, alice.certificate)
    with pytest.raises(UnreachableError, match="alice at"):
        infer.connect(deployment.identity("carol"), (wrong, bob), deployment.contacts["dealer"], timeout_s=0.5)


def test_without_a_certificate_nothing_is_said(deployment: Deployment) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = "127.0.0.1", deployment.contacts["alice"].port
    with (
        socket.create_connection(address, 5) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(raw) as wrapped,
    ):
        wrapped.recv(1)


def test_a_refused_client_is_told_why(deployment: Deployment) -> None:
    from ridotto.infer.messages import Hello

    with deployment.connect() as world:
        world._link.send("alice", Hello(b"x" * 32, b"x" * 32, b"x" * 32))
        with pytest.raises(PeerProtocolError, match="sends a Hello, which is not for a party"):
            world.share(dense(4, 2))
    time.sleep(0.05)
    with deployment.connect() as world:
        assert world.share(dense(4, 2)).predict(np.zeros((1, 4))).shape == (1,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"own": "carol"}, "carol is neither a party nor the dealer"),
        ({"dealer": "alice"}, "all with different names"),
        ({"clients": ()}, "at least one client"),
        ({"clients": ("dave",)}, "there is no place for dave"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, object], why: str) -> None:
    places = {name: Place("certificate.pem") for name in NAMES[:4]}
    good = {"own": "alice", "key": "k", "parties": ("alice", "bob"), "dealer": "dealer", "clients": ("carol",)}
    with pytest.raises(ConfigError, match=why):
        Settings(**(good | {"places": places} | change))  # type: ignore[arg-type]


def test_a_service_from_settings(tmp_path: Path) -> None:
    paths = {name: make_certificate(name, tmp_path) for name in NAMES[:4]}
    places = {name: Place(str(certificate)) for name, (certificate, _) in paths.items()}
    for own in ("alice", "bob", "dealer"):
        settings = Settings(own, str(paths[own][1]), ("alice", "bob"), "dealer", ("carol",), places)
        service = make_service(settings)
        service.stop()
        service.run()


def test_a_process_that_can_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridotto.infer.children.sys.executable", "/bin/false")
    with pytest.raises(UnreachableError, match="party-0 could not be started"):
        infer.processes()


class Silent(Dealer):
    """A dealer that says nothing to queries."""

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        return [] if isinstance(message, Prepare) else super().receive(sender, message, now)


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Deployment]:
    running = Deployment(tmp_path, Limits(wait_s=0.3), Silent)
    yield running
    running.close()


def test_a_dealer_that_deals_nothing_is_named(impatient: Deployment) -> None:
    with impatient.connect() as world:
        secret_model = world.share_model(dense(4, 2))
        with pytest.raises(PeerProtocolError, match=r"dealer: nothing came for 0\.3 s"):
            secret_model.predict(np.zeros((1, 4)))


def test_what_was_dealt_outlives_the_dealer(tmp_path: Path) -> None:
    graph = dense(4, 2)
    x = inputs(graph, 1)
    expected = reference.forward(graph, x).argmax(axis=1)
    running = Deployment(tmp_path)
    try:
        with running.connect() as world:
            secret_model = world.share_model(graph)
            secret_model.prepare(1, count=2)
            running.stop("dealer")
            np.testing.assert_array_equal(secret_model.predict(x), expected)
            np.testing.assert_array_equal(secret_model.predict(x), expected)
            with pytest.raises(UnreachableError, match="dealer"):
                secret_model.predict(x)
            with pytest.raises(UnreachableError, match="dealer"):
                world.check()
    finally:
        running.close()


def test_nobody_gets_in_before_all_are_there(tmp_path: Path) -> None:
    running = Deployment(tmp_path)
    try:
        running.stop("alice")
        with pytest.raises(UnreachableError, match="alice at"):
            running.connect(timeout_s=0.3)
        # Bob is there, and leaves the client waiting: what it would say could not be carried out.
        bob = running.contacts["bob"]
        pins = Pins(running.identity("carol"), {"bob": bob})
        time.sleep(0.3)
        with pytest.raises(UnreachableError, match="timed out"):
            pins.call(bob, 0.2)
    finally:
        running.close()


def hang_up(connection: socket.socket) -> None:
    """Close a connection by a reset, as a process that is killed may do."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("server", [True, False])
def test_a_socket_whose_other_end_is_gone_before_tls_begins_is_closed(tmp_path: Path, server: bool) -> None:
    paths = {name: make_certificate(name, tmp_path) for name in ("alice", "bob")}
    pins = Pins(Identity("alice", *paths["alice"]), {"bob": Contact("bob", "127.0.0.1", 0, paths["bob"][0])})
    with socket.create_server(("127.0.0.1", 0)) as listener, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        caller = socket.create_connection(listener.getsockname())
        called, _ = listener.accept()
        hang_up(caller if server else called)
        with pytest.raises(ConnectionResetError, match="gone"):
            pins.wrap(called if server else caller, server=server)
        gc.collect()
        assert [str(one.message) for one in caught] == []


def test_strangers_who_hang_up_at_once_stop_nobody(deployment: Deployment) -> None:
    graph = dense(4, 2)
    for name in NAMES[:3]:
        for _ in range(20):
            hang_up(socket.create_connection(("127.0.0.1", deployment.contacts[name].port)))
    with deployment.connect() as world:
        assert world.share(graph).predict(inputs(graph, 3)).shape == (3,)


def test_many_threads_over_tls(deployment: Deployment) -> None:
    graph = dense(8, 6, 3)
    x = inputs(graph, 30)
    expected = reference.forward(graph, x).argmax(axis=1)
    with deployment.connect() as world, ThreadPoolExecutor(5) as pool:
        secret_model = world.share_model(graph)
        secret_model.keep_ready(1, 4)
        found = list(pool.map(lambda row: secret_model.predict(row[None])[0], x))
    np.testing.assert_array_equal(found, expected)
