"""What is counted, and how many sessions one client may keep waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridotto import infer
from ridotto.core.machine import Effect, Send
from ridotto.core.wire import Message
from ridotto.errors import ConfigError, PeerProtocolError, StorageError
from ridotto.infer.dealer import Dealer
from ridotto.infer.deployment import load_deployment
from ridotto.infer.host import make_service
from ridotto.infer.in_process import CLIENT, DEALER, PARTIES, LocalLink
from ridotto.infer.messages import Answer, Begin, Failed, Forget, Prepare, Ready
from ridotto.infer.metrics import Watched, write_text
from ridotto.infer.party import Party
from ridotto.infer.world import World
from tests.infer.models import dense, inputs

SESSIONS = [bytes([number]) * 32 for number in range(4)]


class Replies:
    """A machine that answers with what it was told to, and takes two seconds for it."""

    def __init__(self) -> None:
        self.now, self.replies = 0.0, list[Message]()

    def start(self, now: float) -> list[Effect]:
        return []

    def expire(self, now: float) -> list[Effect]:
        return self._said()

    def lose(self, name: str, why: str) -> list[Effect]:
        return []

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        self.now += 2
        return self._said()

    def _said(self) -> list[Effect]:
        said, self.replies = self.replies, []
        return [Send("carol", message) for message in said]

    def clock(self) -> float:
        return self.now


def prepare(session: bytes) -> Prepare:
    return Prepare(session, SESSIONS[0], 1, "class")


def test_a_client_may_keep_so_many_sessions_and_no_more() -> None:
    machine = Replies()
    watched = Watched(machine, per_client=2)
    watched.receive("carol", prepare(SESSIONS[0]), 0)
    watched.receive("carol", prepare(SESSIONS[1]), 0)
    watched.receive("dave", prepare(SESSIONS[2]), 0)
    with pytest.raises(PeerProtocolError, match="carol: keeps 2 sessions waiting, which is what one client may"):
        watched.receive("carol", prepare(SESSIONS[3]), 0)
    assert watched.waiting() == 3
    watched.receive("carol", Begin(SESSIONS[0], SESSIONS[0]), 0)
    watched.receive("carol", prepare(SESSIONS[3]), 0)
    with pytest.raises(PeerProtocolError, match="carol: keeps 2 sessions waiting"):
        watched.receive("carol", prepare(bytes(32)), 0)
    # Nobody ends another client's session.
    watched.receive("carol", Forget(SESSIONS[2]), 0)
    assert watched.waiting() == 3
    watched.receive("carol", Forget(SESSIONS[3]), 0)
    machine.replies = [Failed(SESSIONS[1], "bob", "gone")]
    watched.expire(0)
    watched.lose("dave", "closed the connection")
    assert watched.waiting() == 0
    assert 'ridotto_infer_failed_total{blame="bob"} 1' in watched.text()
    assert 'ridotto_infer_lost_total{who="dave"} 1' in watched.text()


def test_times_are_those_of_whole_sessions() -> None:
    machine = Replies()
    watched = Watched(machine, clock=machine.clock)
    machine.replies = [Ready(SESSIONS[0])]
    watched.receive("carol", prepare(SESSIONS[0]), 0)
    watched.receive("carol", Begin(SESSIONS[0], SESSIONS[1]), 0)
    machine.replies = [Answer(SESSIONS[0], 1, 8, memoryview(b"12345678"))]
    watched.receive("bob", Ready(SESSIONS[0]), 0)
    lines = watched.text().splitlines()
    assert 'ridotto_infer_offline_seconds{quantile="0.5"} 2.000000' in lines
    assert 'ridotto_infer_online_seconds{quantile="0.5"} 4.000000' in lines
    assert 'ridotto_infer_sent_bytes_total{to="carol"} 8' in lines


def test_real_machines_are_counted(tmp_path: Path) -> None:
    from ridotto.core.rng import OsRng

    machines = {DEALER: Watched(Dealer(PARTIES, (CLIENT,), OsRng()))}
    for place, name in enumerate(PARTIES):
        party = Party(first=place == 0, peer=PARTIES[1 - place], dealer=DEALER, clients=(CLIENT,))
        machines[name] = Watched(party)
    graph = dense(8, 6, 3)
    with World(LocalLink(dict(machines))) as world:
        secret_model = world.share_model(graph, comparison="boolean")
        for _ in range(3):
            secret_model.predict(inputs(graph, 2))
        assert secret_model.stats is not None
        secret_model.prepare(2)
    assert machines[PARTIES[0]].waiting() == 1
    write_text(machines[PARTIES[0]], tmp_path / "metrics.prom")
    lines = (tmp_path / "metrics.prom").read_text().splitlines()
    assert 'ridotto_infer_sent_total{kind="Answer"} 3' in lines
    assert 'ridotto_infer_sessions_waiting{client="client"} 1' in lines
    # One for the model, and those of each query.
    assert 'ridotto_infer_rounds_total{from="party-1"} ' + str(1 + 3 * secret_model.stats.rounds) in lines
    assert machines[DEALER].waiting() == 0
    with pytest.raises(StorageError, match="can't be written to"):
        write_text(machines[DEALER], tmp_path / "none" / "metrics.prom")


GOOD = """
parties = ["alice", "bob"]
dealer = "dealer"
clients = ["carol", "dave"]
[places]
alice = { port = 9701 }
bob = { port = 9702, host = "10.0.0.2" }
dealer = { port = 9703, certificate = "third.pem" }
[limits]
sessions = 8
"""


def test_a_deployment_tells_everybody_what_to_know(tmp_path: Path) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text(GOOD)
    deployment = load_deployment(file)
    settings = deployment.settings("dealer")
    assert settings.places["dealer"].certificate == str(tmp_path / "third.pem")
    assert settings.key == str(tmp_path / "dealer.key")
    assert settings.limits.sessions == 8
    (zero, one), dealer = deployment.contacts()
    assert (zero.port, one.host, dealer.name) == (9701, "10.0.0.2", "dealer")
    assert deployment.identity("carol").key == tmp_path / "carol.key"
    with pytest.raises(ConfigError, match="erin is neither a party nor the dealer here: expected one of alice, bob"):
        deployment.settings("erin")
    with pytest.raises(ConfigError, match="say which client you are: one of carol, dave"):
        deployment.client()
    with pytest.raises(ConfigError, match="alice is no client here"):
        deployment.client("alice")


@pytest.mark.parametrize(
    ("found", "replaced", "why"),
    [
        ("port = 9702, ", "", r"bob is called by others: say where"),
        ("bob =", "rob =", r"\[places.rob\] is of nobody"),
        ("port = 9701", "port = 70000", "a port is 0 to 65535, not 70000"),
        ("sessions = 8", "session = 8", "unknown field `session`"),
        ('"bob"]', '"bob"', "Unclosed array|Cannot"),
    ],
)
def test_what_is_wrong_in_a_deployment_is_named(tmp_path: Path, found: str, replaced: str, why: str) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text(GOOD.replace(found, replaced))
    with pytest.raises(ConfigError, match=why) as refused:
        load_deployment(file)
    assert str(file) in str(refused.value)


def test_a_client_must_be_allowed_something(tmp_path: Path) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text(f"per_client = 0\n{GOOD}")
    with pytest.raises(ConfigError, match="a client needs at least 1 session"):
        load_deployment(file).settings("alice")
    with pytest.raises(ConfigError, match="there is no file"):
        load_deployment(tmp_path / "none.toml")


def test_a_path_for_counts_is_tried_first(tmp_path: Path) -> None:
    from ridotto.crypto.certificates import make_certificate

    for name in ("alice", "bob", "third", "carol", "dave"):
        make_certificate(name, tmp_path)
    file = tmp_path / "deployment.toml"
    file.write_text(GOOD)
    settings = load_deployment(file).settings("alice", metrics=tmp_path / "none" / "file.prom")
    with pytest.raises(StorageError, match="metrics can't be written"):
        make_service(settings)


def test_the_default_world_has_room_for_its_own_pool() -> None:
    with infer.local() as world:
        secret_model = world.share_model(dense(4, 2))
        secret_model.keep_ready(1, 100)
        assert secret_model.predict(inputs(dense(4, 2), 1)).shape == (1,)
