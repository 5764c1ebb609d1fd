"""The floor of W1 MLP in torch: gradients by hand, the update of a weight fused into its product.

Its products are MKL's, a third faster than OpenBLAS's on these shapes; importing it takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bench.simulation.floors import numpy_mlp
from bench.simulation.floors.workers import Train
from bench.simulation.workloads import Data, Parts, Workload, batch_order

torch.set_num_threads(1)

accuracy, initial = numpy_mlp.accuracy, numpy_mlp.initial


def make(data: Data, parts: Parts, task: Workload) -> Train:
    classes, size, rate = task.dense[-1], task.batch_size, task.learning_rate
    vector = np.empty(len(task.initial()), np.float32)
    weight, bias, second = map(torch.from_numpy, numpy_mlp.views(vector, task))
    second, last = second[:, :-1].t(), second[:, -1]
    x_all, one_hot = torch.from_numpy(data.x), torch.eye(classes)[torch.from_numpy(data.y)]
    threshold = torch.ops.aten.threshold_backward

    def step(rows: torch.Tensor) -> None:
        x = x_all.index_select(0, rows)
        hidden = torch.addmm(bias, x, weight).relu_()
        delta = torch.addmm(last, hidden, second).softmax(1)
        delta.sub_(one_hot.index_select(0, rows)).mul_(rate / len(rows))
        back = threshold(torch.mm(delta, second.t()), hidden, 0)
        second.addmm_(hidden.t(), delta, alpha=-1)
        last.sub_(delta.sum(0))
        weight.addmm_(x.t(), back, alpha=-1)
        bias.sub_(back.sum(0))

    def train(model: np.ndarray, number: int, clients: Sequence[int], total: np.ndarray) -> float:
        examples = 0
        total[:] = 0
        for client in clients:
            order = torch.from_numpy(parts.start(client) + batch_order(number, client, task.examples))
            vector[:] = model
            for batch in order.split(size):
                step(batch)
            np.multiply(vector, np.float32(len(order)), out=vector)
            np.add(total, vector, out=total)
            examples += len(order)
        return examples

    without_gradients: Train = torch.inference_mode()(train)
    return without_gradients
