"""How an image is got back from what one step of SGD did to a dense network: three ways.

ratios      a hidden unit that only one image excites: its weights' gradient over its bias' gradient is that image
bins        the same on a model that the server crafted such that every image excites other units
matched     images are changed until they would have caused the gradient that was seen

Source: Phong et al., "Privacy-Preserving Deep Learning: Revisited and Enhanced", ATIS 2017, section 3 (ratios); Fowl,
Geiping, Czaja, Goldblum, Goldstein, "Robbing the Fed: Directly Obtaining Private Data in Federated Learning with
Modified Models", ICLR 2022, algorithm 1 (bins); Zhu, Liu, Han, "Deep Leakage from Gradients", NeurIPS 2019, and
Geiping, Bauermeister, Dröge, Moeller, "Inverting Gradients", NeurIPS 2020, equation 4 (matched).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.attacks import digits

SMALLEST = 1e-12
"""A unit whose bias moved by less was excited by nobody."""

STEPS, RATE, SMOOTH = 300, 0.1, 1e-3
"""Steps and learning rate of Adam, and the weight of total variation: settings of Geiping et al. for small models."""


class Network:
    """The first two layers of a 784-h-10 network as views of its parameters, or of their gradient."""

    def __init__(self, vector: np.ndarray, hidden: int) -> None:
        cuts = np.cumsum((digits.FEATURES * hidden, hidden, digits.CLASSES * hidden))
        first, bias, second, last = np.split(vector, cuts)
        self.first, self.bias = first.reshape(digits.FEATURES, hidden), bias
        self.second, self.last = second.reshape(digits.CLASSES, hidden), last


def ratios(seen: np.ndarray, hidden: int) -> np.ndarray:
    """Return a candidate for each hidden unit that moved, shape (candidates, 784). seen: an update, or their mean."""
    network = Network(seen, hidden)
    moved = np.abs(network.bias) > SMALLEST
    found: np.ndarray = (network.first[:, moved] / network.bias[moved]).T
    return found


def crafted(hidden: int, known: np.ndarray) -> np.ndarray:
    """Return parameters whose units all measure brightness, and begin to fire from dark to bright.

    known: images of the same kind, which the server has, shape (n, 784): they tell how bright images are.
    """
    levels = np.quantile(known.mean(axis=1), np.linspace(0, 1, hidden, endpoint=False))
    vector = np.zeros(digits.FEATURES * hidden + hidden + digits.CLASSES * hidden + digits.CLASSES, np.float32)
    network = Network(vector, hidden)
    network.first[...] = 1 / digits.FEATURES
    network.bias[...] = -levels
    # Every unit is heard alike, so that each image pulls alike at all that it excites; classes differ.
    network.second[...] = np.linspace(-1, 1, digits.CLASSES)[:, None] / hidden
    return vector


def bins(seen: np.ndarray, hidden: int) -> np.ndarray:
    """Return a candidate for each level of brightness, shape (candidates, 784), from an update of a crafted model."""
    network = Network(seen, hidden)
    # What excites a unit and not the next lies between the two.
    first = np.diff(network.first, axis=1, append=0)
    bias = np.diff(network.bias, append=0)
    moved = np.abs(bias) > SMALLEST
    return (first[:, moved] / bias[moved]).T


def matched(seen: np.ndarray, start: np.ndarray, labels: np.ndarray, hidden: int, seed: int) -> np.ndarray:
    """Return images whose mean gradient points where the seen updates do, shape (sums, images, 784). Takes torch.

    seen: one update or mean of updates a row, shape (sums, d). start: the parameters, shape (d,). labels: of the
    images behind each, which the attacker is taken to know, shape (sums, images).
    """
    import torch

    torch.set_num_threads(1)  # on a busy machine, threads that wait for each other take many times as long
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.from_numpy(part.copy()) for part in vars(Network(start, hidden)).values()]
    goals = [torch.from_numpy(np.stack(part)) for part in zip(*(parts(-row, hidden) for row in seen), strict=True)]
    wanted = torch.nn.functional.one_hot(torch.from_numpy(labels), digits.CLASSES).float()
    images = torch.randn(*labels.shape, digits.FEATURES, generator=generator).requires_grad_()
    adam = torch.optim.Adam([images], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    for _ in range(STEPS):
        adam.zero_grad()
        found = gradients(images, wanted, weights)
        loss = (1 - cosine(found, goals)).sum() + SMOOTH * variation(images)
        loss.backward()
        adam.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(digits.BLACK, digits.WHITE)
    result: np.ndarray = images.detach().numpy()
    return result


def parts(row: np.ndarray, hidden: int) -> list[np.ndarray]:
    return list(vars(Network(row, hidden)).values())


def gradients(images: Any, wanted: Any, weights: Any) -> list[Any]:
    """Return the gradient of each sum's mean loss by the four parameters; torch follows through it to the images."""
    import torch

    first, bias, second, last = weights
    inner = images @ first + bias
    excited = torch.relu(inner)
    delta = (torch.softmax(excited @ second.T + last, -1) - wanted) / images.shape[1]
    back = (delta @ second) * (inner > 0)
    return [images.mT @ back, back.sum(1), delta.mT @ excited, delta.sum(1)]


def cosine(found: Any, goals: Any) -> Any:
    product = sum((one * other).flatten(1).sum(1) for one, other in zip(found, goals, strict=True))
    norms = [sum(part.square().flatten(1).sum(1) for part in side) for side in (found, goals)]
    return product / (norms[0] * norms[1]).sqrt().clamp_min(SMALLEST)


def variation(images: Any) -> Any:
    square = images.unflatten(-1, (digits.SIDE, digits.SIDE))
    return square.diff(dim=-1).abs().mean() + square.diff(dim=-2).abs().mean()
