"""Downloads of a participant: deltas where it holds a recent model, and never anything but what was announced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from ridotto.core.tensors import write_model
from ridotto.core.vector import Layout
from ridotto.core.wire import digest
from ridotto.errors import DataError, PeerProtocolError
from ridotto.learn.compress.delta import encode_delta
from ridotto.participant.client import Client
from ridotto.participant.models import Models, rebuilt
from tests.participant.bench import Bench, SameRng, StepTrainer, take_part
from tests.participant.fake import PLAN, URL, FakeCoordinator, key

LAYOUT = Layout.of({"weight": np.zeros((20, 20), np.float32), "bias": np.zeros(7, np.float32)})


class DeltaCoordinator(FakeCoordinator):
    """A coordinator that sends deltas, one round at a time, and remembers what it was asked for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.deltas: dict[tuple[str, str], bytes] = {}
        self.asked: list[str] = []
        self.newest = self.vault.model_digest.hex()
        self.spoil: Callable[[str, bytes], bytes] = lambda held, data: data

    def answer(self, request: httpx.Request) -> httpx.Response:
        now = self.vault.model_digest.hex()
        if now != self.newest and self.vault.delta is not None:
            self.deltas[self.newest, now] = self.vault.delta
            self.newest = now
        name, held = request.url.path.rpartition("/")[2], request.url.params.get("from", "")
        if "/models/" in request.url.path:
            self.asked.append("whole" if not held else "delta" if (held, name) in self.deltas else "unknown base")
        if (held, name) in self.deltas:
            return httpx.Response(200, content=self.spoil(held, self.deltas[held, name]))
        return super().answer(request)


def fake(rounds: int = 3, bits: int | None = 4) -> DeltaCoordinator:
    return DeltaCoordinator(LAYOUT, msgspec.structs.replace(PLAN, download_bits=bits), rounds)


def bench(folder: Path, coordinator: DeltaCoordinator) -> Bench:
    return Bench(folder, coordinator, LAYOUT)


def train() -> StepTrainer:
    return StepTrainer(0.37, LAYOUT)


def test_fetches_the_first_model_whole_and_deltas_after_it(tmp_path: Path) -> None:
    coordinator = fake()
    summary = take_part(bench(tmp_path, coordinator), train())
    assert coordinator.asked == ["whole", "delta", "delta", "delta"]
    assert summary.model_digest == coordinator.vault.model_digest
    assert summary.model.tobytes() == coordinator.vault.model.tobytes()
    first, second, _ = summary.rounds
    assert first.received_bytes - second.received_bytes > 3 * LAYOUT.length


def test_without_download_bits_it_keeps_nothing(tmp_path: Path) -> None:
    coordinator = fake(bits=None)
    take_part(bench(tmp_path, coordinator), train())
    assert coordinator.asked == ["whole"] * 4
    assert list(tmp_path.glob("*.model")) == []


def test_a_process_that_starts_again_goes_on_with_the_model_on_its_disk(tmp_path: Path) -> None:
    coordinator = fake(rounds=1)
    take_part(bench(tmp_path, coordinator), train())
    (path,) = tmp_path.glob("*.model")
    assert path.stat().st_mode & 0o077 == 0
    client = Client(URL, key("me"), transport=coordinator.transport())
    assert Models(client, path, 1 << 20).fetch(coordinator.vault.model_digest, keep=True) == path.read_bytes()
    assert coordinator.asked == ["whole", "delta"]


def test_a_damaged_file_costs_a_whole_model(tmp_path: Path) -> None:
    coordinator = fake(rounds=2)

    class Damaging(StepTrainer):
        def train(self, vector, data, rng):
            (path,) = tmp_path.glob("*.model")
            path.write_bytes(path.read_bytes()[:-1] + b"\x01" if self.calls == 0 else b"")
            return super().train(vector, data, rng)

    take_part(bench(tmp_path, coordinator), Damaging(0.37, LAYOUT))
    assert coordinator.asked == ["whole", "unknown base", "unknown base"]


def test_a_disk_that_takes_no_model_costs_whole_models(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coordinator, made = fake(rounds=2), bench(tmp_path, fake(rounds=1))
    with made.state() as state:
        state.path.with_suffix(".model").mkdir()
    with caplog.at_level(logging.WARNING):
        take_part(bench(tmp_path, coordinator), train())
    assert coordinator.asked == ["whole", "whole", "whole"]
    assert "can't be kept" in caplog.text


@pytest.mark.parametrize("lie", ["garbage", "other base", "other model", "long", "nothing", "huge step"])
def test_a_hostile_delta_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture, lie: str) -> None:
    coordinator = fake(rounds=2)
    zeros = np.zeros(LAYOUT.length, np.float32)

    def spoilt(held: str, data: bytes) -> bytes:
        old = np.frombuffer(coordinator.models[bytes.fromhex(held)][-4 * LAYOUT.length :], "<f4")
        lies = {
            "garbage": b"x" * 100,
            "other base": encode_delta(zeros + 1, zeros + 2, 4, SameRng()).data,
            "other model": encode_delta(old, zeros - 5, 4, SameRng()).data,
            "long": data * 100,
            "nothing": b"",
            "huge step": data[:80] + np.float32(3e38).tobytes() + data[84:],
        }
        return lies[lie]

    coordinator.spoil = spoilt
    with caplog.at_level(logging.WARNING):
        summary = take_part(bench(tmp_path, coordinator), train())
    assert summary.model_digest == coordinator.vault.model_digest
    assert "the whole is fetched" in caplog.text
    assert coordinator.asked.count("whole") == 3


def test_a_coordinator_without_the_model_is_named(tmp_path: Path) -> None:
    coordinator = fake()
    models = Models(Client(URL, key("me"), transport=coordinator.transport()), tmp_path / "a.model", 1 << 20)
    models.fetch(coordinator.vault.model_digest, keep=True)
    with pytest.raises(PeerProtocolError, match="does not have the model that it announced"):
        models.fetch(b"\x00" * 32, keep=True)


def test_rebuilds_a_file_over_several_deltas() -> None:
    vectors = [np.full(LAYOUT.length, step, np.float32) for step in range(4)]
    held, deltas = write_model(vectors[0], LAYOUT), b""
    model = vectors[0]
    for wanted in vectors[1:]:
        delta = encode_delta(model, wanted, 2, SameRng())
        deltas, model = deltas + delta.data, delta.model
    wanted_file = write_model(model, LAYOUT)
    assert rebuilt(held, deltas, digest(wanted_file)) == wanted_file
    with pytest.raises(DataError, match="lead to another model"):
        rebuilt(held, deltas[: len(deltas) // 3], digest(wanted_file))
