"""Modules of PyTorch become graphs that answer the same."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.errors import DataError
from ridotto.infer.graph import Conv2d, Graph, Linear
from ridotto.infer.reference import forward

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from ridotto.infer.from_torch import from_torch  # noqa: E402


def kinds(graph: Graph) -> list[str]:
    return [type(layer).__name__ for layer in graph.architecture.layers]


def names(graph: Graph) -> list[str]:
    return [layer.name for layer in graph.architecture.layers]


def agree(module: nn.Module, shape: tuple[int, ...], batch: int = 5) -> Graph:
    """Import a module with running statistics that are not trivial, compare the answers, return the graph."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for values in (part.weight, part.bias, part.running_mean):
                if values is not None:
                    nn.init.normal_(values)
            nn.init.uniform_(part.running_var, 0.5, 2)
    x = torch.randn(batch, *shape)
    graph = from_torch(module, x)
    with torch.no_grad():
        expected = module.eval()(x).numpy()
    answer = forward(graph, x.numpy())
    assert answer.shape == expected.shape
    assert np.abs(answer - expected).max() < 1e-5
    return graph


def test_a_sequential_of_linear_layers() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4, bias=False), nn.Sigmoid())
    graph = agree(module, (6,))
    assert kinds(graph) == ["Linear", "Relu", "Linear", "Sigmoid"]
    assert names(graph) == ["0", "1", "2", "3"]


def test_a_convolutional_network_with_everything() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, (3, 2), stride=(2, 1), padding="valid", groups=4, bias=False),
        nn.Tanh(),
        nn.AvgPool2d(2, stride=1),
        nn.Dropout2d(0.3),
        nn.Identity(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(12 * 2 * 5, 10),
        nn.BatchNorm1d(10),
        nn.GELU(),
        nn.Softmax(dim=1),
    )
    graph = agree(module, (3, 14, 14))
    assert kinds(graph) == [
        "Conv2d",
        "Relu",
        "MaxPool2d",
        "Conv2d",
        "Tanh",
        "AvgPool2d",
        "Flatten",
        "Linear",
        "Gelu",
        "Softmax",
    ]


class Handwritten(nn.Module):
    """A forward of functions and methods, as scripts have them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 5), nn.Sequential(nn.ReLU()))
        self.fc1 = nn.Linear(4 * 6 * 6, 16)
        self.fc2 = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.features(x), 2)
        x = x.view(x.size(0), -1)
        x = F.dropout(torch.tanh(self.fc1(x)), training=self.training)
        return torch.softmax(self.fc2(F.relu(x)), dim=-1)


def test_a_module_with_a_forward_of_its_own() -> None:
    graph = agree(Handwritten(), (1, 16, 16))
    assert kinds(graph) == ["Conv2d", "Relu", "MaxPool2d", "Flatten", "Linear", "Tanh", "Relu", "Linear", "Softmax"]
    assert names(graph)[0] == "features.0"
    assert names(graph)[4] == "fc1"


class Functions(nn.Module):
    """All the functions and methods that are layers, and one line each that does nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(x, 2, 2).relu()
        x = F.adaptive_avg_pool2d(x.contiguous(), (2, 2)).tanh().sigmoid()
        x = F.adaptive_max_pool2d(F.gelu(x), 1)
        x = F.sigmoid(torch.flatten(x, 1)).reshape(x.shape[0], -1)
        return torch.relu(F.softmax(x, dim=1)).flatten(1)


def test_functions_and_methods() -> None:
    graph = agree(Functions(), (3, 8, 8))
    assert kinds(graph)[:3] == ["AvgPool2d", "Relu", "AvgPool2d"]


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), (3, 4, 4), ["Conv2d", "Relu"]),
        (nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), (3,), ["Linear", "Relu"]),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), (3,), ["Linear"]),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2)), (3,), ["Relu", "Linear"]),
        (
            nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)),
            (2, 4, 4),
            ["Relu", "Conv2d", "Conv2d"],
        ),
        (
            nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8), nn.BatchNorm1d(8), nn.Linear(8, 2)),
            (2, 2, 2),
            ["Flatten", "Linear"],
        ),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU()), (1, 5, 5), ["Conv2d", "Relu"]),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()), (1, 4, 6), ["MaxPool2d", "Relu"]),
    ],
)
def test_batch_norm_is_folded_wherever_it_stands(
    module: nn.Module, shape: tuple[int, ...], expected: list[str]
) -> None:
    assert kinds(agree(module, shape)) == expected


def test_a_folded_norm_costs_no_layer_and_groups_survive() -> None:
    module = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8))
    (layer,) = agree(module, (4, 6, 6)).architecture.layers
    assert layer == Conv2d("0", 4, 8, (3, 3), groups=2)


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).double().train()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    graph = from_torch(module, np.zeros((1, 2)))
    assert all(part.training for part in module.modules())
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    assert graph.architecture.layers == (Linear("0", 2, 2),)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc(x)


class Fork(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.fc(x)
        return torch.relu(self.fc(x)) * torch.relu(x)


class Early(Residual):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.fc(x)
        return y, torch.relu(y)


class Two(Residual):
    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.fc(x)


class Decides(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if x.sum() > 0 else x


class Permutes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


@pytest.mark.parametrize(
    ("module", "shape", "why"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU()), (3,), r"layer 1 \(LeakyReLU\): is not supported; supported"),
        (nn.Sequential(nn.ReLU(), nn.LayerNorm(3)), (3,), r"layer 1 \(LayerNorm\): .*Linear, Conv2d"),
        (nn.Sequential(nn.Linear(3, 3), nn.LogSoftmax(1)), (3,), r"layer 1 \(log_softmax\): .* leave it out"),
        (nn.Sequential(nn.GELU("tanh")), (3,), r"layer 0 \(gelu\): .* by tanh"),
        (nn.Sequential(nn.Softmax(0)), (3,), r"layer 0 \(softmax\): over dimension 0"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, dilation=2)), (1, 8, 8), r"layer 0 \(conv2d\): dilation"),
        (nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")), (1, 8, 8), "one side only"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), (1, 8, 8), "padding with reflect"),
        (nn.Sequential(nn.MaxPool2d(3, padding=1)), (1, 8, 8), r"layer 0 \(max_pool2d\): padding"),
        (nn.Sequential(nn.MaxPool2d(3, ceil_mode=True)), (1, 8, 8), "ceil_mode"),
        (nn.Sequential(nn.MaxPool2d(2, dilation=2)), (1, 8, 8), "dilation"),
        (nn.Sequential(nn.AvgPool2d(2, divisor_override=3)), (1, 8, 8), "divisor"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(3)), (1, 8, 8), r"\(8, 8\) does not split into \(3, 3\)"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2))), (4,), r"turns \(4,\) into \(1, 2, 2\)"),
        (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), (3,), "no running statistics"),
        (Permutes(), (1, 2, 3), r"\(permute\): is not supported"),
        (Residual(), (3,), r"layer add \(add\): takes x, fc.* no branches"),
        (Fork(), (3,), r"layer relu_1 \(relu\): .* no branches"),
        (Early(), (3,), "something else than its last"),
        (Two(), (3,), "a second input, y"),
        (Decides(), (3,), "can't trace this module"),
        (nn.Sequential(nn.Linear(3, 3)), (4,), r"shape \(2, 4\) does not pass"),
        (nn.Sequential(nn.Linear(3, 3)), (2, 3), r"not \(2, 3\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_refuses_what_it_can_not_import_by_name(module: nn.Module, shape: tuple[int, ...], why: str) -> None:
    with pytest.raises(DataError, match=why):
        from_torch(module, torch.zeros(2, *shape))


def test_refuses_what_is_no_module() -> None:
    with pytest.raises(DataError, match="dict is no torch"):
        from_torch({}, torch.zeros(1, 3))
