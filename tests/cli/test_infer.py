"""`ridotto infer`: models and examples from files, a deployment of real processes, and who is named when one dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ridotto
from ridotto import infer
from ridotto.core.tensors import write_model

TRAINER = ridotto.NumpyTrainer((6, 5, 3), seed=1)
X = np.random.default_rng(1).random((9, 6), np.float32)

PROGRAM = """
import ridotto
from torch import nn

def module():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))

def task():
    return ridotto.Task(ridotto.NumpyTrainer((6, 5, 3), seed=2), [])
"""


def plain(x: np.ndarray) -> np.ndarray:
    arrays = TRAINER.layout.unflatten(TRAINER.initial())
    hidden = np.maximum(x @ arrays["layer1.weight"] + arrays["layer1.bias"], 0)
    return (hidden @ arrays["layer2.weight"].T + arrays["layer2.bias"]).argmax(axis=1)


@pytest.fixture
def in_here(monkeypatch):
    """Let --local compute in this process: three of their own are started by the tests of `infer.processes`."""
    monkeypatch.setattr("ridotto.infer.processes", lambda timeout_s: infer.local())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(write_model(TRAINER.initial(), TRAINER.layout))
    np.savez(tmp_path / "images.npz", x=X, y=plain(X))
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


class Three:
    """Parties and dealer as processes that `ridotto infer serve` runs."""

    def __init__(self, folder: Path, ridotto) -> None:
        self.folder = folder
        names = ("alice", "bob", "dealer")
        assert ridotto("infer", "keys", *names, "owner", "carol", "--folder", folder, "--json").code == 0
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
        places = [f"{name} = {{ port = {each.getsockname()[1]} }}" for name, each in zip(names, sockets, strict=True)]
        for each in sockets:
            each.close()
        head = 'parties = ["alice", "bob"]\ndealer = "dealer"\nclients = ["owner", "carol"]\n[places]\n'
        (folder / "deployment.toml").write_text("\n".join([head, *places]))
        self.running = {name: self.start(name) for name in names}
        for name in names:
            self.wait(name)

    def start(self, name: str) -> subprocess.Popen[str]:
        return self.call("serve", "--party", name, "--metrics", str(self.folder / f"{name}.prom"))

    def wait(self, name: str) -> None:
        assert json.loads(self.running[name].stdout.readline())["event"] == "listening"

    def call(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ridotto", "infer", *arguments, "--json"]
        config = ["--config", str(self.folder / "deployment.toml")]
        return subprocess.Popen([*command, *config], stdout=subprocess.PIPE, text=True)

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].communicate()

    def close(self) -> None:
        for name in self.running:
            self.kill(name)


@pytest.fixture
def three(files, ridotto) -> Iterator[Three]:
    running = Three(files, ridotto)
    yield running
    running.close()


def test_a_deployment_from_keys_to_a_party_that_dies(three, files, ridotto):
    given = ("--config", files / "deployment.toml", files / "images.npz")
    ticket, model = files / "model.ticket", files / "model.safetensors"
    owner = three.call("share", str(ticket), "--model", str(model), "--as", "owner")
    assert json.loads(owner.stdout.readline())["event"] == "shared"

    asked = ("infer", "predict", "--as", "carol", *given)
    ran = ridotto(*asked, "--ticket", ticket, "--to", "alice,bob", "--dealer", "dealer", "--batch", 2, "--json")
    assert ran.code == 0, ran.err
    *rows, summary = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["class"] for row in rows] == plain(X).tolist()
    assert summary["accuracy"] == 1
    assert summary["queries"] == 5
    assert summary["rounds"] > 5

    owner.send_signal(signal.SIGINT)
    owner.communicate(timeout=20)
    assert owner.returncode == 0
    assert not ticket.exists()

    # Nobody forgets who is missing; started again, it is found.
    three.kill("dealer")
    own = (*asked, "--model", model)
    ran = ridotto(*own, "--timeout", 0.5)
    assert ran.code == 8
    assert ran.sentence.startswith("dealer at 127.0.0.1:")
    three.running["dealer"] = three.start("dealer")
    three.wait("dealer")
    three.kill("bob")
    three.running["bob"] = three.start("bob")
    three.wait("bob")
    assert ridotto(*own).code == 0


def test_classes_and_logits_on_this_machine(files, ridotto, in_here):
    given = ("infer", "predict", "--local", "--model", files / "model.safetensors", files / "images.npz")
    ran = ridotto(*given, "--logits", "--save", files / "logits.npy")
    assert ran.code == 0, ran.err
    assert "agreement            1.0000" in ran.out
    np.testing.assert_array_equal(np.load(files / "logits.npy").argmax(axis=1), plain(X))
    ran = ridotto(*given, "--authenticated")
    assert ran.code == 0, ran.err
    assert "agreement            1.0000" in ran.out


def test_what_a_program_says_of_a_file(files, ridotto, monkeypatch):
    pytest.importorskip("torch")
    from ridotto.cli.infer_files import read_graph
    from ridotto.infer.graph import Linear, Tanh
    from ridotto.learn.adapt import adapt

    monkeypatch.chdir(files)
    graph = read_graph(files / "model.safetensors", "program.py:task", None)
    assert graph.architecture.input_shape == (6,)
    names = {}
    exec(PROGRAM, names)
    adapter = adapt(names["module"]())
    (files / "torch.safetensors").write_bytes(write_model(adapter.read(), adapter.layout))
    graph = read_graph(files / "torch.safetensors", "program.py:module", X)
    assert [type(layer) for layer in graph.architecture.layers] == [Linear, Tanh, Linear]
    given = ("infer", "predict", "--local", "--model")
    ran = ridotto(*given, "torch.safetensors", "images.npz")
    assert (ran.code, "does not say by itself what is computed" in ran.sentence) == (4, True)
    ran = ridotto(*given, "model.safetensors", "images.npz", "--program", "program.py:module")
    assert (ran.code, "names or shapes differ" in ran.sentence) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--local"], 2, "say which model: one of --model FILE and --ticket FILE"),
        (["--model", "model.safetensors"], 2, "say who computes: --config FILE.toml"),
        (["--model", "none.safetensors", "--local"], 2, "there is no model none.safetensors"),
        (["--model", "program.py", "--local"], 4, "program.py is neither .safetensors nor .onnx"),
        (["--model", "images.npz", "--local"], 4, "is neither .safetensors nor .onnx"),
        (["--model", "model.safetensors", "--local", "--to", "alice,bob"], 2, "--to and --dealer name parties of a"),
        (["--model", "model.safetensors", "--config", "none.toml"], 2, "there is no file none.toml"),
        (["--model", "model.safetensors", "--config", "d.toml", "--to", "bob,alice"], 2, "--to is bob,alice, the"),
        (["--model", "model.safetensors", "--config", "d.toml", "--dealer", "bob"], 2, "--dealer is bob, the dealer"),
        (["--model", "model.safetensors", "--config", "d.toml", "--as", "eve"], 2, "eve is no client here: one of"),
        (["--ticket", "none", "--config", "d.toml", "--authenticated"], 2, "--authenticated goes with --model"),
        (["--ticket", "none", "--config", "d.toml"], 2, "the ticket none can't be read"),
        (["--model", "model.safetensors", "--local", "--save", "x.csv"], 2, "--save writes a .npy file, not x.csv"),
    ],
)
def test_one_sentence_for_each_mistake(files, ridotto, monkeypatch, arguments, code, sentence):
    monkeypatch.chdir(files)
    places = "\n".join(f"{name} = {{ port = 9 }}" for name in ("alice", "bob", "dealer"))
    text = f'parties = ["alice", "bob"]\ndealer = "dealer"\nclients = ["carol"]\n[places]\n{places}'
    (files / "d.toml").write_text(text)
    for name in ("alice", "bob", "dealer", "carol"):
        (files / f"{name}.pem").write_text("")
    ran = ridotto("infer", "predict", *arguments, "images.npz")
    assert ran.code == code
    assert sentence in ran.sentence


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"z": X}, "has the arrays z, expected one named x"),
        ({"x": np.array(["a", "b"])}, "expected numbers"),
        ({"x": X, "y": np.zeros(3)}, "9 examples and classes of shape"),
    ],
)
def test_examples_that_are_none(files, ridotto, monkeypatch, arrays, sentence):
    np.savez(files / "images.npz", **arrays)
    ran = ridotto("infer", "predict", "--local", "--model", files / "model.safetensors", files / "images.npz")
    assert ran.code == 4
    assert sentence in ran.sentence


def test_bytes_are_pixels(tmp_path):
    from ridotto.cli.infer_files import fit, read_examples

    np.savez(tmp_path / "images.npz", x_test=np.full((2, 3, 3), 255, np.uint8), y_test=np.arange(2))
    x, y = read_examples(tmp_path / "images.npz")
    assert (x.shape, x.dtype, x.max(), y.tolist()) == ((2, 1, 3, 3), np.float32, 1, [0, 1])
    assert fit(x, (9,)).shape == (2, 9)
    assert fit(x, (8,)).shape == (2, 1, 3, 3)


def test_keys_are_never_overwritten(tmp_path, ridotto):
    assert ridotto("infer", "keys", "alice", "--folder", tmp_path).code == 0
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    ran = ridotto("infer", "keys", "alice", "--folder", tmp_path)
    assert (ran.code, "alice.key can't be written" in ran.sentence) == (9, True)
    assert ridotto("infer", "keys", "../eve", "--folder", tmp_path).code == 2


@pytest.mark.parametrize("verb", ["keys", "serve", "share", "predict", "bench"])
def test_every_verb_has_help_with_an_example(ridotto, verb):
    ran = ridotto("infer", verb, "--help")
    assert ran.code == 0
    assert f"ridotto infer {verb}" in " ".join(ran.out.split())
    assert "--json" in ran.out


def test_costs_are_measured(files, ridotto, in_here):
    ran = ridotto("infer", "bench", "--model", files / "model.safetensors", "--batch", 3, "--repeats", 2, "--json")
    assert ran.code == 0, ran.err
    row = json.loads(ran.out)
    assert row["batch"] == 3
    assert row["rounds"] > 5
    assert row["online_ms"] > 0 < row["offline_ms"]
