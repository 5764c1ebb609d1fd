"""ONNX models become graphs that answer as ONNX's own reference does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridotto.errors import DataError
from ridotto.infer.graph import Graph
from ridotto.infer.reference import forward

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from ridotto.infer.from_onnx import from_onnx  # noqa: E402

RNG = np.random.default_rng(1)


def weights(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32) / 2


def make(shape: tuple[Any, ...], *steps: Any, batch: Any = "N", opset: int = 20, outputs: tuple[str, ...] = ()) -> Any:
    """Chain nodes: each step is (operator, constants after the input, attributes), or a node made by hand."""
    nodes, constants, current = [], [], "x"
    for index, step in enumerate(steps):
        if isinstance(step, onnx.NodeProto):
            nodes.append(step)
        else:
            kind, arrays, attributes = step
            names = [f"c{index}_{position}" for position in range(len(arrays))]
            constants += [numpy_helper.from_array(np.asarray(a), n) for n, a in zip(names, arrays, strict=True)]
            result = f"y{index}"
            nodes.append(helper.make_node(kind, [current, *names], [result], name=f"{kind}{index}", **attributes))
        current = nodes[-1].output[0]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, *shape))
    y = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs or (current,)]
    graph = helper.make_graph(nodes, "test", [x], y, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def agree(model: Any, batch: int = 4) -> Graph:
    graph = from_onnx(model)
    x = RNG.normal(size=(batch, *graph.architecture.input_shape)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    answer = forward(graph, x)
    assert answer.shape == expected.shape
    assert np.abs(answer - expected).max() < 1e-5
    return graph


def kinds(graph: Graph) -> list[str]:
    return [type(layer).__name__ for layer in graph.architecture.layers]


def test_a_convolutional_network() -> None:
    variance = np.float32([0.5, 1, 2, 1])
    model = make(
        (2, 11, 10),
        ("Conv", [weights(4, 1, 3, 3), weights(4)], {"group": 2, "pads": [1, 0, 1, 0], "strides": [2, 1]}),
        ("BatchNormalization", [weights(4), weights(4), weights(4), variance], {"epsilon": 1e-3}),
        ("Relu", [], {}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", [weights(6, 4, 1, 3)], {}),
        ("Tanh", [], {}),
        ("AveragePool", [], {"kernel_shape": [2, 1]}),
        ("Identity", [], {}),
        ("Flatten", [], {}),
        ("Dropout", [], {}),
        ("Gemm", [weights(5, 24), weights(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ("Sigmoid", [], {}),
        ("MatMul", [weights(5, 3)], {}),
        ("Add", [weights(3)], {}),
        ("Softmax", [], {"axis": 1}),
    )
    graph = agree(model)
    assert kinds(graph) == [
        *["Conv2d", "Relu", "MaxPool2d", "Conv2d", "Tanh", "AvgPool2d", "Flatten"],
        *["Linear", "Sigmoid", "Linear", "Softmax"],
    ]
    assert [layer.name for layer in graph.architecture.layers][:2] == ["Conv0", "Relu2"]


@pytest.mark.parametrize(
    ("shape", "steps", "expected"),
    [
        ((3,), [("Sub", [np.float32([1, 2, 3])], {}), ("Div", [np.float32([[2, 4, 8]])], {})], ["Linear"]),
        ((3,), [("Mul", [np.float32(2)], {}), ("Gemm", [weights(3, 2)], {})], ["Linear"]),
        ((2, 3, 3), [("Sub", [weights(2, 1, 1)], {}), ("Relu", [], {})], ["Conv2d", "Relu"]),
        ((2, 3, 3), [("Conv", [weights(2, 2, 2, 2)], {}), ("Add", [weights(1, 2, 1, 1)], {})], ["Conv2d"]),
        ((2, 3, 3), [("GlobalAveragePool", [], {}), ("Reshape", [np.int64([0, -1])], {})], ["AvgPool2d", "Flatten"]),
        ((2, 3, 3), [("GlobalMaxPool", [], {}), ("Reshape", [np.int64([-1, 2])], {})], ["MaxPool2d", "Flatten"]),
        ((1, 5, 5), [("Conv", [weights(2, 1, 3, 3)], {"auto_pad": "SAME_UPPER"})], ["Conv2d"]),
        ((1, 5, 5), [("Conv", [weights(2, 1, 3, 3)], {"auto_pad": "VALID"})], ["Conv2d"]),
        ((4,), [("Gelu", [], {}), ("Flatten", [], {})], ["Gelu"]),
        ((1, 4, 4), [("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})], ["MaxPool2d"]),
    ],
)
def test_small_chains(shape: tuple[int, ...], steps: list[Any], expected: list[str]) -> None:
    assert kinds(agree(make(shape, *steps))) == expected


def test_a_constant_before_the_minus() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([1, 2])))
    model = make((2,), constant, helper.make_node("Sub", ["c", "x"], ["y"]), ("Relu", [], {}))
    assert kinds(agree(model)) == ["Linear", "Relu"]


def test_a_reshape_whose_shape_is_computed() -> None:
    # As exporters write x.view(x.size(0), -1).
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.int64(0))),
        helper.make_node("Gather", ["shape", "zero"], ["size"]),
        helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.int64([0]))),
        helper.make_node("Unsqueeze", ["size", "axes"], ["row"]),
        helper.make_node("Constant", [], ["rest"], value=numpy_helper.from_array(np.int64([-1]))),
        helper.make_node("Concat", ["row", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
    ]
    assert kinds(agree(make((2, 2, 2), *nodes, ("Relu", [], {})))) == ["Flatten", "Relu"]


def test_a_file_its_bytes_and_a_fixed_batch(tmp_path: Path) -> None:
    model = make((3,), ("Gemm", [weights(3, 2)], {}), batch=1)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    digests = {from_onnx(source).architecture.digest() for source in (path, str(path), path.read_bytes(), model)}
    assert len(digests) == 1


def join(kind: str) -> Any:
    return helper.make_node(kind, ["x", "y0"], ["sum"], name="join")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (make((3,), ("LeakyRelu", [], {})), r"layer LeakyRelu0 \(LeakyRelu\): is not supported; supported are Add, "),
        (make((3,), ("LogSoftmax", [], {})), "LogSoftmax0 .* leave it out"),
        (make((3,), ("Relu", [], {}), join("Add")), r"layer join \(Add\): takes x, y0, expected .* no branches"),
        (make((3,), ("Relu", [], {}), ("Tanh", [], {}), outputs=("y0",)), "another output than its last"),
        (make((3,), ("Relu", [], {}), ("Tanh", [], {}), outputs=("y0", "y1")), "another output than its last"),
        (make((1, 4, 4), ("Transpose", [], {"perm": [0, 2, 3, 1]})), "Transpose0 .* is not supported"),
        (make((1, 4, 4), ("Reshape", [np.int64([0, 4, 4])], {})), r"turns \(1, 4, 4\) into \(4, 4\)"),
        (make((1, 4, 4), ("Flatten", [], {"axis": 0})), "turns a batch of 251 into 1"),
        (make((1, 4, 4), ("Conv", [weights(1, 1, 2, 2)], {"dilations": [2, 2]})), "Conv0 .* dilation"),
        (make((1, 4, 4), ("Conv", [weights(1, 1, 2, 2)], {"pads": [1, 1, 0, 0]})), r"padding of \(1, 1\) before"),
        (make((1, 4, 4), ("Conv", [weights(1, 1, 2, 2)], {"auto_pad": "SAME_LOWER"})), "padding of .* is not the same"),
        (make((1, 4), ("Conv", [weights(1, 1, 2)], {})), "only two dimensions"),
        (make((1, 5, 5), ("MaxPool", [], {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]})), "padding is not supported"),
        (make((1, 5, 5), ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})), "ceil_mode"),
        (make((1, 5, 5), ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [2, 2]})), "dilation"),
        (make((1, 4), ("MaxPool", [], {"kernel_shape": [2]})), "only two dimensions"),
        (make((2, 3, 3), ("Add", [weights(3, 3)], {})), r"constant of shape \(3, 3\) is not one number"),
        (make((3, 3, 3), ("Add", [weights(3)], {})), r"constant of shape \(3,\) is not one number"),
        (make((3,), ("Gelu", [], {"approximate": "tanh"})), "by tanh"),
        (make((2, 3, 3), ("Softmax", [], {})), "flat wire only"),
        (make((3,), ("Gemm", [weights(3, 2)], {}), opset=20, batch=1).SerializeToString()[:-20], "not a readable"),
        (make(("H",), ("Relu", [], {})), "leaves its input's shape open"),
        (make((3,), ("BatchNormalization", [-np.ones(3, np.float32)] * 4, {})), "variance is negative"),
        (make((3,), ("Div", [np.float32([1, 0, 1])], {})), r"Div0 .* divides by zero"),
        ("no-such-file.onnx", "not a readable ONNX model"),
        (3, "int is no ONNX model"),
    ],
)
def test_refuses_what_it_can_not_import_by_name(model: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        from_onnx(model)


def test_refuses_a_secret_divisor_and_weights_that_are_not_constant() -> None:
    one = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([1, 2])))
    with pytest.raises(DataError, match="division by a secret value"):
        from_onnx(make((2,), one, helper.make_node("Div", ["c", "x"], ["y"])))
    computed = helper.make_node("Exp", ["c"], ["w"])
    with pytest.raises(DataError, match="input 1 is not constant"):
        from_onnx(make((2,), one, computed, helper.make_node("MatMul", ["x", "w"], ["y"])))


def test_damaged_files_are_refused_and_nothing_else_is_raised() -> None:
    chain = (
        ("Conv", [weights(4, 2, 3, 3), weights(4)], {"pads": [1, 0, 1, 0], "strides": [2, 1]}),
        ("BatchNormalization", [weights(4), weights(4), weights(4), np.ones(4, np.float32)], {}),
        ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Sub", [weights(4, 1, 1)], {}),
        ("Flatten", [], {}),
        ("Gemm", [weights(5, 48), weights(5)], {"transB": 1}),
        ("Softmax", [], {}),
    )
    data = make((2, 11, 10), *chain).SerializeToString()
    assert from_onnx(data).architecture.output_shape == (5,)
    draws = np.random.default_rng(2)
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in draws.integers(len(data), size=draws.integers(1, 4)):
            damaged[place] = draws.integers(256)
        try:
            from_onnx(bytes(damaged))
        except DataError:
            refused += 1
    assert 50 < refused < 300


def test_refuses_two_inputs() -> None:
    model = make((3,), ("Relu", [], {}))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 3)))
    with pytest.raises(DataError, match="takes 2 inputs"):
        from_onnx(model)
