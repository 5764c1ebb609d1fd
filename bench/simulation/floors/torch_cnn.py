"""The floors of W1 CNN in torch: `eager` with autograd, `byhand` with the gradient written out.

Both keep all parameters in one flat buffer and activations channels-last (pooling takes a fraction of the time), and
pool before the relu: the same numbers, for a quarter of the work. `byhand` has weights channels-last too, saves
autograd's bookkeeping and fuses the updates of the linear layers into their products.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from bench.simulation.floors.workers import Train
from bench.simulation.models import cnn
from bench.simulation.workloads import Data, Parts, Workload, batch_order

torch.set_num_threads(1)
if hasattr(libc := ctypes.CDLL(None), "mallopt"):
    # glibc gives the activations' memory back after every step and has it zeroed for the next: 6 % of the time.
    libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD

SHAPES = ((16, 5, 5, 1), (16,), (32, 5, 5, 16), (32,), (128, 4, 4, 32), (128,), (10, 128), (10,))
"""As they lie in the flat vector, channels last; the first linear layer reads 4 x 4 x 32."""

MODULE_SHAPES = ((16, 1, 5, 5), (16,), (32, 16, 5, 5), (32,), (128, 512), (128,), (10, 128), (10,))
LAST = (0, 2, 3, 1)
FIRST = (0, 3, 1, 2)

Step = Callable[[torch.Tensor, torch.Tensor], None]


def initial(task: Workload) -> np.ndarray:
    arrays = [parameter.detach() for parameter in cnn().parameters()]
    arrays[4] = arrays[4].view(128, 32, 4, 4)
    arrays = [array.permute(LAST) if array.ndim == 4 else array for array in arrays]
    flat: np.ndarray = torch.cat([array.reshape(-1) for array in arrays]).numpy()
    return flat


def cut(flat: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    sizes = [int(np.prod(shape)) for shape in shapes]
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]


def byhand(data: Data, parts: Parts, task: Workload) -> Train:
    vector = torch.empty(len(initial(task)))
    arrays = cut(vector, SHAPES)
    w1, w2 = (array.permute(FIRST) for array in (arrays[0], arrays[2]))
    w3, (w4, b4) = arrays[4].view(128, 512), arrays[6:]
    b1, b2, b3 = arrays[1], arrays[3], arrays[5]
    aten = torch.ops.aten
    stride, none, unit = [1, 1], [0, 0], [2, 2]

    def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return aten.convolution(x, weight, bias, stride, none, stride, False, none, 1)

    def unpool(delta: torch.Tensor, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return aten.max_pool2d_with_indices_backward(delta, x, unit, unit, none, stride, False, places)

    def descend(
        delta: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, inner: bool
    ) -> torch.Tensor:
        wanted = [inner, True, True]
        back, d_weight, d_bias = aten.convolution_backward(
            delta, x, weight, [len(bias)], stride, none, stride, False, none, 1, wanted
        )
        weight.sub_(d_weight)
        bias.sub_(d_bias)
        return back

    def step(x: torch.Tensor, target: torch.Tensor) -> None:
        count = len(x)
        x = x.view(count, 1, 28, 28)
        c1 = convolve(x, w1, b1)
        p1, i1 = aten.max_pool2d_with_indices(c1, unit, unit)
        c2 = convolve(p1.relu_(), w2, b2)
        p2, i2 = aten.max_pool2d_with_indices(c2, unit, unit)
        flat = p2.relu_().permute(LAST).view(count, 512)
        hidden = torch.addmm(b3, flat, w3.t()).relu_()
        delta = torch.addmm(b4, hidden, w4.t()).softmax(1)
        delta.sub_(target).mul_(task.learning_rate / count)
        back = aten.threshold_backward(torch.mm(delta, w4), hidden, 0)
        w4.addmm_(delta.t(), hidden, alpha=-1)
        b4.sub_(delta.sum(0))
        deep = aten.threshold_backward(torch.mm(back, w3), flat, 0)
        w3.addmm_(back.t(), flat, alpha=-1)
        b3.sub_(back.sum(0))
        deep = unpool(deep.view(count, 4, 4, 32).permute(FIRST), c2, i2)
        deep = descend(deep, p1, w2, b2, True)
        deep = unpool(aten.threshold_backward(deep, p1, 0), c1, i1)
        descend(deep, x, w1, b1, False)

    one_hot = torch.eye(10)[torch.from_numpy(data.y)]
    train: Train = torch.inference_mode()(_clients(step, vector, one_hot, data, parts, task))
    return train


def eager(data: Data, parts: Parts, task: Workload) -> Train:
    module = cnn().to(memory_format=torch.channels_last)
    parameters = list(module.parameters())
    vector, gradient = (torch.empty(sum(map(torch.numel, parameters))) for _ in range(2))
    for parameter, array, slope in zip(parameters, cut(vector, SHAPES), cut(gradient, SHAPES), strict=True):
        if parameter.shape[1:] == (512,):
            parameter.data, parameter.grad = array.view(128, 512), slope.view(128, 512)
        else:
            parameter.data, parameter.grad = (a.permute(FIRST) if a.ndim == 4 else a for a in (array, slope))
    w1, b1, w2, b2, w3, b3, w4, b4 = parameters

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        gradient.zero_()
        hidden = F.relu(F.max_pool2d(F.conv2d(x.view(-1, 1, 28, 28), w1, b1), 2))
        hidden = F.relu(F.max_pool2d(F.conv2d(hidden, w2, b2), 2)).permute(LAST).flatten(1)
        F.cross_entropy(F.linear(F.relu(F.linear(hidden, w3, b3)), w4, b4), y).backward()
        vector.sub_(gradient, alpha=task.learning_rate)

    return _clients(step, vector, torch.from_numpy(data.y), data, parts, task)


def _clients(
    step: Step, vector: torch.Tensor, targets: torch.Tensor, data: Data, parts: Parts, task: Workload
) -> Train:
    x_all, flat = torch.from_numpy(data.x), vector.numpy()

    def train(model: np.ndarray, number: int, clients: Sequence[int], total: np.ndarray) -> float:
        examples = 0
        total[:] = 0
        for client in clients:
            order = torch.from_numpy(parts.start(client) + batch_order(number, client, task.examples))
            flat[:] = model
            for batch in order.split(task.batch_size):
                step(x_all.index_select(0, batch), targets.index_select(0, batch))
            np.multiply(flat, np.float32(len(order)), out=flat)
            np.add(total, flat, out=total)
            examples += len(order)
        return examples

    return train


def accuracy(model: np.ndarray, data: Data, task: Workload) -> float:
    module = cnn()
    arrays = cut(torch.from_numpy(model), SHAPES)
    with torch.inference_mode():
        for parameter, array, shape in zip(module.parameters(), arrays, MODULE_SHAPES, strict=True):
            parameter.copy_((array.permute(FIRST) if array.ndim == 4 else array).reshape(shape))
        x, y = map(torch.from_numpy, data.test)
        correct = sum(int((module(a).argmax(1) == b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True))
    return correct / len(y)
