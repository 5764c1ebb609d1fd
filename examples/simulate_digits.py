"""Federated training in ten lines, without a server: handwritten digits among 20 clients, summed behind masks.

    python examples/simulate_digits.py [rounds] [folder]

Every round, ten of the clients train on their own digits; the labels are spread unevenly. The sums of their updates are
all that the simulated coordinator sees. Needs the extras "sklearn" (the data) and "plot" (the picture).
"""

import sys

import ridotto
from ridotto.core.rng import insecure_seeded_rng

rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
folder = sys.argv[2] if len(sys.argv) > 2 else "simulated-digits"

x, y = ridotto.digits()
test = x[1500:], y[1500:]
parts = ridotto.partition.dirichlet(y[:1500], clients=20, alpha=0.5, rng=insecure_seeded_rng(1))
clients = [(x[part], y[part]) for part in parts]
trainer = ridotto.NumpyTrainer((64, 64, 10), seed=1, epochs=3, batch_size=16, learning_rate=0.3)

result = ridotto.simulate(trainer, clients, rounds=rounds, seed=1, test=test)

print(result.history)  # a pandas DataFrame where pandas is installed
result.save(folder)
result.plot(f"{folder}/history.png")
