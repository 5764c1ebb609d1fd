"""Train a network behind masks, encrypt it, and let it classify encrypted images.

    python examples/encrypted_mnist.py [--data mnist.npz] [--rounds 15] [--images 1000] [--batch 100] [--in-process]

Twenty clients train together; the sums of their masked updates are all that the coordinator sees. Then the model and
the images are secret-shared between two parties, with a dealer that sees neither: three processes of this machine, with
TLS between them. Only the class of each image becomes known. Without --data, scikit-learn's small digits are used
(extra "sklearn"); a file has the arrays x_train, y_train, x_test and y_test, as MNIST's usual .npz has. The extra
"speed" makes the encrypted part several times faster.
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.progress import track

import ridotto
from ridotto import infer


def main():
    arguments = parse()
    begin = time.perf_counter()
    (x, y), (test_x, test_y) = load(arguments.data)
    test_x, test_y = test_x[: arguments.images], test_y[: arguments.images]
    trained = train(x, y, (test_x, test_y), arguments.rounds)
    graph = infer.dense_graph(trained.vector, trained.layout)
    plain = infer.forward(graph, test_x).argmax(axis=1)
    print(f"trained behind masks in {time.perf_counter() - begin:.1f} s")

    with infer.local() if arguments.in_process else infer.processes() as world:
        # Head-room is checked on the owner's own examples; parties learn shapes and encoding, no weights.
        secret_model = world.share(graph, examples=x[:2000])
        classes, stats = classify(secret_model, test_x, arguments.batch)

    batch = min(arguments.batch, len(test_x))
    offline, online = (np.median([getattr(each, name) for each in stats]) * 1e3 for name in ("offline_s", "online_s"))
    print(f"plain accuracy      {np.mean(plain == test_y):.4f} on {len(test_x)} images")
    print(f"encrypted accuracy  {np.mean(classes == test_y):.4f}")
    print(f"agreement           {np.mean(classes == plain):.4f}")
    print(f"offline             {offline:.2f} ms a query of {batch}, {offline / batch:.3f} ms an image")
    print(f"online              {online:.2f} ms a query of {batch}, {online / batch:.3f} ms an image")
    sent = stats[-1].sent_bytes / len(test_x[-(len(test_x) % batch or batch) :])
    print(f"between parties     {stats[0].rounds} rounds a query, {sent:.0f} bytes an image online")
    print(f"everything took     {time.perf_counter() - begin:.1f} s")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="an .npz file; scikit-learn's digits without it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--in-process", action="store_true", help="parties and dealer in this process")
    return parser.parse_args()


def load(path):
    if path is None:
        x, y = ridotto.digits()
        return (x[:1400], y[:1400]), (x[1400:], y[1400:])
    with np.load(path) as file:
        images, labels = ((file[f"{kind}_train"], file[f"{kind}_test"]) for kind in "xy")
    flat = [part.reshape(len(part), -1).astype(np.float32) / 255 for part in images]
    return (flat[0], labels[0].astype(np.int64)), (flat[1], labels[1].astype(np.int64))


def train(x, y, test, rounds):
    parts = ridotto.partition.dirichlet(y, clients=20, alpha=1.0, rng=ridotto.insecure_seeded_rng(1))
    clients = [(x[part], y[part]) for part in parts]
    epochs = 10 if len(x) < 10_000 else 1
    sizes = (x.shape[1], 128, 128, 10)
    trainer = ridotto.NumpyTrainer(sizes, seed=1, epochs=epochs, batch_size=16, learning_rate=0.1)
    return ridotto.simulate(trainer, clients, rounds=rounds, seed=1, test=test, plan=ridotto.Plan(cohort=10))


def classify(secret_model, images, batch):
    classes, stats = [], []
    steps = track(range(0, len(images), batch), "encrypted", console=Console(stderr=True), transient=True)
    for start in steps:
        classes.append(secret_model.predict(images[start : start + batch]))
        stats.append(secret_model.stats)
    return np.concatenate(classes), stats


if __name__ == "__main__":
    main()
