"""Real clients of xaynet, as its own examples start them: `python xaynet_clients.py URL NUMBER`, until killed.

Client i trains a model whose weight i alone is its own, so that a mean tells who is in it. Prints a line of JSON for
each global model that a client receives.
"""

from __future__ import annotations

import json
import sys
import threading
from fractions import Fraction
from importlib import import_module

LENGTH = 16
OWN = 12
"""Weights from 0 on that belong to one client each; the others are everybody's."""


def scalar(number: int) -> Fraction:
    return Fraction(number % 4 + 1, 8)


def model(number: int, first: bool) -> list[Fraction]:
    """What a client sends: other weights once it has received a global model. All are exact in the masks' encoding."""
    step = Fraction(1, 2) if first else Fraction(1, 4)
    own = [step if place == number else Fraction(0) for place in range(OWN)]
    return [*own, step * number / 16, -step * number / 16, Fraction(number % 3 - 1), Fraction(1, 64)]


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    sdk = import_module("xaynet_sdk")
    printing = threading.Lock()

    class Trainer(sdk.ParticipantABC):  # type: ignore[misc, name-defined]
        def __init__(self, number: int) -> None:
            self.number = number

        def train_round(self, training_input: list[float] | None) -> list[float]:
            return [float(weight) for weight in model(self.number, training_input is None)]

        def serialize_training_result(self, training_result: list[float]) -> list[float]:
            return training_result

        def deserialize_training_input(self, global_model: list[float]) -> list[float]:
            return global_model

        def on_new_global_model(self, global_model: list[float] | None) -> None:
            if global_model is not None:
                with printing:
                    print(json.dumps(global_model), flush=True)

    # They are threads: the names keep them, and this one waits for ever.
    clients = [
        sdk.spawn_participant(url, Trainer, args=(number,), scalar=float(scalar(number))) for number in range(count)
    ]
    for client in clients:
        client.join()


if __name__ == "__main__":
    main()
