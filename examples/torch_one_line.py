"""A standalone PyTorch script, and the one line that makes it a participant.

    ridotto serve examples/server.toml
    RIDOTTO_TOKEN=... python examples/torch_one_line.py http://127.0.0.1:8765 hospital-0 0

Start it three times, with names and numbers from 0 to 2 and a token for each from runs/digits/tokens.txt.
"""

import argparse
import os
import pathlib

import torch
from torch import nn

import ridotto
from ridotto.tasks import digits


def make_model():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train_one_epoch(model, data):
    x, y = data
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2)
    for batch in torch.randperm(len(x)).split(16):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()


def make_task():
    """What the coordinator is told: which model, and where training starts."""
    torch.manual_seed(1)
    return ridotto.Task(ridotto.TorchTrainer(make_model()), clients=[])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("name")
    parser.add_argument("number", type=int)
    parser.add_argument("--state", type=pathlib.Path)
    given = parser.parse_args()

    torch.manual_seed(given.number)
    task = digits(clients=3)  # stands for your own data
    data = tuple(torch.from_numpy(part) for part in task.clients[given.number])
    model = make_model()
    # Three participants hide little from each other, so taking part takes consent.
    settings = {
        "name": given.name,
        "state": given.state,
        "token": os.environ.get("RIDOTTO_TOKEN", ""),
        "policy": ridotto.Policy(i_know=("small-cohort",)),
    }

    # for epoch in range(10):                                                        # before
    for epoch in ridotto.rounds(given.url, model, examples=len(data[1]), **settings):  # after
        train_one_epoch(model, data)
        print(f"epoch {epoch}: trained on {len(data[1])} digits", flush=True)

    x, y = (torch.from_numpy(part) for part in task.test)
    accuracy = (model(x).argmax(1) == y).float().mean().item()
    print(f"accuracy of the common model on held-out digits: {accuracy:.3f}")


if __name__ == "__main__":
    main()
