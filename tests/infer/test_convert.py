"""Every kind of model finds its importer, and an absent framework is named."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ridotto.errors import DataError, MissingExtraError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.convert import to_graph
from ridotto.infer.graph import Graph
from ridotto.infer.reference import forward

WEIGHT = np.float32([[1, 2, 3], [4, 5, 6]])
X = np.float32([[1, 0, -1]])


def graph() -> Graph:
    builder = GraphBuilder()
    builder.linear("fc", WEIGHT)
    return builder.build((3,))


def test_a_graph_stays_as_it_is() -> None:
    model = graph()
    assert to_graph(model) is model
    assert to_graph(model, X) is model


def test_a_module_of_torch() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2, bias=False)
    module.weight.data = torch.tensor(WEIGHT)
    assert forward(to_graph(module, X), X).tolist() == [[-2, -2]]
    assert forward(to_graph(module, torch.tensor(X)), X).tolist() == [[-2, -2]]
    with pytest.raises(DataError, match="needs an example"):
        to_graph(module)

    class Mine(torch.nn.Sequential):  # type: ignore[name-defined, misc]
        pass

    assert forward(to_graph(Mine(module), X), X).tolist() == [[-2, -2]]


def test_an_estimator_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rows = np.vstack([np.eye(3), np.zeros((1, 3))])
    model = linear.LinearRegression().fit(rows, rows @ WEIGHT.T)
    assert np.abs(forward(to_graph(model, X), X) + 2).max() < 1e-5


def test_an_onnx_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("N", 3)) for name in "xy")
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    for source in (model, path, str(path), path.read_bytes()):
        assert forward(to_graph(source), X).tolist() == [[1, 0, 0]]


def test_an_example_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(1, 2\), expected \(batch, 3\)"):
        to_graph(graph(), [[1, 2]])


def test_other_things_are_refused() -> None:
    with pytest.raises(DataError, match=r"dict is no model .* expected a torch.nn.Module"):
        to_graph({})
    with pytest.raises(DataError, match=r"model.pt is no .onnx file"):
        to_graph("model.pt")


@pytest.mark.parametrize(
    ("package", "extra", "name"), [("torch", "torch", "torch"), ("sklearn", "sklearn", "scikit-learn"), ("onnx",) * 3]
)
def test_an_absent_framework_is_named(package: str, extra: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes an import fail as if the package were not there.
    for loaded in [package, *(module for module in sys.modules if module.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.delitem(sys.modules, f"ridotto.infer.from_{package}", raising=False)
    with pytest.raises(MissingExtraError, match=rf"{name} is needed .* pip install 'ridotto\[{extra}\]'"):
        importlib.import_module(f"ridotto.infer.from_{package}")


def test_importing_models_imports_no_framework() -> None:
    program = (
        "import sys, ridotto.infer.convert, ridotto.infer.calibrate\n"
        "print([name for name in ('torch', 'sklearn', 'onnx') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
