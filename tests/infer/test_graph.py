"""A model's public half and its secret half."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest

from ridotto.errors import DataError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import (
    Architecture,
    AvgPool2d,
    Conv2d,
    Flatten,
    Gelu,
    Graph,
    Layer,
    Linear,
    MaxPool2d,
    Relu,
    Sigmoid,
    Softmax,
    Tanh,
    Weights,
)


def small() -> Graph:
    """Make a graph with every kind of layer that changes a shape."""
    builder = GraphBuilder()
    builder.conv2d("conv", np.full((4, 1, 3, 3), 0.5), np.ones(4), stride=(2, 1), padding=(1, 0), groups=2)
    builder.add(Relu(builder.name("relu")))
    builder.add(MaxPool2d(builder.name("pool"), (2, 2), (2, 2)))
    builder.add(AvgPool2d(builder.name("mean"), (2, 1), (1, 1)))
    builder.add(Flatten(builder.name("flat")))
    builder.linear("fc", np.full((3, 12), 0.25))
    builder.add(Softmax(builder.name("softmax")))
    return builder.build((2, 9, 8))


def test_infers_the_shape_of_every_wire() -> None:
    architecture = small().architecture
    # 9 rows + 2 of padding, windows of 3, every second: 5; 8 columns, windows of 3: 6.
    assert architecture.wires == ((2, 9, 8), (4, 5, 6), (4, 5, 6), (4, 2, 3), (4, 1, 3), (12,), (3,), (3,))
    assert architecture.output_shape == (3,)


@pytest.mark.parametrize(
    ("shape", "layer", "why"),
    [
        ((5,), Linear("fc2", 4, 3), r"fc2 \(Linear\): expects an input of shape \(4,\) and gets \(5,\)"),
        ((1, 2, 2), Linear("fc2", 4, 3), "flatten it first"),
        ((4,), Conv2d("c1", 1, 2, (3, 3)), r"c1 \(Conv2d\): expects an input of shape \(1, height, width\)"),
        ((2, 4, 4), Conv2d("c1", 1, 2, (3, 3)), r"gets \(2, 4, 4\)"),
        ((1, 2, 9), Conv2d("c1", 1, 2, (3, 3)), r"windows of \(3, 3\) do not fit into \(2, 9\)"),
        ((4,), MaxPool2d("p", (2, 2), (2, 2)), r"p \(MaxPool2d\): expects an input of shape \(channels"),
        ((1, 1, 4), AvgPool2d("p", (2, 2), (2, 2)), r"p \(AvgPool2d\): windows"),
        ((1, 2, 2), Softmax("s"), r"s \(Softmax\): expects an input of shape \(features,\)"),
        ((1 << 20,), Linear("big", 1 << 20, 1 << 20), "big .* elements, at most"),
    ],
)
def test_refuses_shapes_that_do_not_fit_by_the_layers_name(shape: tuple[int, ...], layer: Layer, why: str) -> None:
    with pytest.raises(DataError, match=why):
        Architecture(shape, (layer,))


@pytest.mark.parametrize("shape", [(), (2, 3), (1, 2, 3, 4)])
def test_refuses_an_input_that_is_neither_features_nor_an_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"leave the batch out"):
        Architecture(shape, (Relu("r"),))


def test_refuses_no_layers_and_two_of_one_name() -> None:
    with pytest.raises(DataError, match="at least one layer"):
        Architecture((3,), ())
    with pytest.raises(DataError, match=r"r .* the same name"):
        Architecture((3,), (Relu("r"), Tanh("r")))


def test_refuses_impossible_sizes() -> None:
    with pytest.raises(DataError, match=r"p \(MaxPool2d\): stride is \(0, 1\)"):
        MaxPool2d("p", (2, 2), (0, 1))
    with pytest.raises(DataError, match=r"c \(Conv2d\): padding is \(-1, 0\)"):
        Conv2d("c", 1, 1, (3, 3), padding=(-1, 0))
    with pytest.raises(DataError, match=r"c \(Conv2d\): 3 and 4 channels do not split into 2 groups"):
        Conv2d("c", 3, 4, (3, 3), groups=2)
    with pytest.raises(DataError, match=r"f \(Linear\): outputs is 2.0"):
        Linear("f", 3, 2.0)  # type: ignore[arg-type]


def test_the_encoding_is_canonical_and_reads_back() -> None:
    architecture = small().architecture
    assert Architecture.decode(architecture.encode()) == architecture
    assert small().architecture.encode() == architecture.encode()


def test_every_kind_of_layer_reads_back() -> None:
    kinds = (Relu("a"), Sigmoid("b"), Tanh("c"), Gelu("d"), Softmax("e"), Linear("f", 3, 3))
    assert Architecture.decode(Architecture((3,), kinds).encode()).layers == kinds


def test_the_digest_is_this_one() -> None:
    architecture = Architecture((4,), (Linear("fc", 4, 2), Relu("relu")))
    encoded = b"\x92\x01\x92\x91\x04\x92\x94\xa6Linear\xa2fc\x04\x02\x92\xa4Relu\xa4relu"
    assert architecture.encode() == encoded
    assert architecture.digest() == hashlib.sha256(b"ridotto/1 infer architecture\x00" + encoded).digest()


def test_the_digest_depends_on_the_architecture_only() -> None:
    first = GraphBuilder()
    first.linear("fc", np.ones((2, 3)))
    second = GraphBuilder()
    second.linear("fc", np.zeros((2, 3)), np.ones(2))
    third = GraphBuilder()
    third.linear("fc", np.ones((3, 3)))
    digests = [builder.build((3,)).architecture.digest() for builder in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode((2, Architecture((3,), (Relu("r"),)))),
        msgspec.msgpack.encode((1, ((3,), ()))),
        msgspec.msgpack.encode((1, ((3,), (("Relu", "bad\nname"),)))),
        msgspec.msgpack.encode((1, ((3,), (("Dance", "r"),)))),
        msgspec.msgpack.encode((1, ((3,), (("Linear", "r", 0, 3),)))),
        msgspec.msgpack.encode((1, ((3,), (("Linear", "r", 4, 3),)))),
        msgspec.msgpack.encode((1, ((3,), (("Relu", "r"),), "more"))),
        msgspec.msgpack.encode((1, ((1 << 60,), (("Relu", "r"),)))),
        # A number that is longer than it need be: readable, not canonical.
        msgspec.msgpack.encode((1, ((3,), (("Relu", "r"),)))).replace(b"\x91\x03", b"\x91\xcc\x03"),
    ],
)
def test_refuses_bytes_that_are_no_architecture(value: bytes) -> None:
    with pytest.raises(DataError):
        Architecture.decode(value)


def test_a_graph_never_shows_its_parameters() -> None:
    graph = small()
    for text in (repr(graph), repr(graph.parameters), repr(graph.parameters["fc"]), str(graph)):
        assert "secret" in text
        assert "0.25" not in text
        assert "0.5" not in text


def test_parameters_are_copies_that_nobody_changes() -> None:
    weight = np.ones((2, 3), np.float32)
    builder = GraphBuilder()
    builder.linear("fc", weight)
    graph = builder.build((3,))
    weight[:] = 7
    assert graph.parameters["fc"].weight.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        graph.parameters["fc"].weight[0, 0] = 2
    with pytest.raises(TypeError):
        graph.parameters["fc"] = Weights(weight, weight)  # type: ignore[index]


def test_refuses_parameters_that_do_not_fit() -> None:
    architecture = Architecture((3,), (Linear("fc", 3, 2), Relu("r")))
    weight, bias = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    with pytest.raises(DataError, match=r"fc .* no parameters"):
        Graph(architecture, {})
    with pytest.raises(DataError, match="r, which is no layer with parameters"):
        Graph(architecture, {"fc": Weights(weight, bias), "r": Weights(weight, bias)})
    with pytest.raises(DataError, match=r"fc .* weight is float32 \(3, 2\), expected float32 \(2, 3\)"):
        Graph(architecture, {"fc": Weights(weight.T, bias)})
    with pytest.raises(DataError, match=r"fc .* bias is float64"):
        Graph(architecture, {"fc": Weights(weight, bias.astype(np.float64))})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"fc .* weight is not finite"):
        Graph(architecture, {"fc": Weights(weight * np.float32(np.inf), bias)})


def test_the_builder_cleans_names_and_makes_them_unique() -> None:
    builder = GraphBuilder()
    assert [builder.name(wish) for wish in ("/fc/Gemm", "a b", "a b", "", "a_b-2")] == [
        "fc/Gemm",
        "a_b",
        "a_b-2",
        "layer",
        "a_b-2-2",
    ]


def test_the_builder_refuses_a_scale_of_other_channels() -> None:
    builder = GraphBuilder()
    builder.linear("fc", np.ones((2, 3)))
    with pytest.raises(DataError, match=r"norm: 3 channels after fc, which has 2"):
        builder.affine("norm", np.ones(3), np.zeros(3), image=False)


def test_the_builder_refuses_weights_of_the_wrong_rank() -> None:
    with pytest.raises(DataError, match=r"fc .* no matrix"):
        GraphBuilder().linear("fc", np.ones(3))
    with pytest.raises(DataError, match=r"c .* two dimensions"):
        GraphBuilder().conv2d("c", np.ones((2, 3)))
