"""Attack 3: some participants lie. Model replacement with a backdoor, flipped labels, reversed updates.

100 clients with two kinds of digits each train in every round; 10 or 30 of them lie in all of them. Backdoor: half of a
liar's images get a bright square and the label 0, and its update is multiplied such that the liars together replace the
mean. Flipped labels: a liar trains on 9 - y, and multiplies nothing. Reversed: a liar sends the opposite of what it
learnt, multiplied as for the backdoor.

Success: the share of test images with the square that are taken for a 0, without those that are one; the share of
test images that are taken for 9 - y; for reversed updates, what is left of the accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import ridotto
from bench.attacks import digits
from bench.attacks.malice import TARGET, Kind, Liars, Lie, flipped, triggered
from bench.attacks.table import Settings, Table, Value, percent
from ridotto.core.vector import Vector
from ridotto.errors import RidottoError

CLIP = 1.0
SHARES = (0.1, 0.3)
DELTA = 1e-5

SOURCE = "Bagdasaryan et al., AISTATS 2020; Tolpegin et al., ESORICS 2020; Blanchard et al., NeurIPS 2017"

BULYAN_MOST = 24
"""It needs 4f + 3 updates, and there are 100: at 30 % it is built for fewer liars than there are."""

FAILED = "round fails"
"""Too many were found to lie: no new model. That is a defence, too, against all but the wish to stop training."""


def open_plan(**choices: Any) -> ridotto.Plan:
    """Return a plan whose server sees updates: what it checks, it checks of liars as well."""
    risks = (ridotto.Risk.NO_PROTECTION,)
    settings: dict[str, Any] = {"cohort": digits.CLIENTS, "max_examples": 1, "value_range": 64.0, "i_know": risks}
    return ridotto.Plan(**(settings | {"protocol": ridotto.Ideal()} | choices))


@dataclass(frozen=True)
class Defence:
    """plan: made when it is needed, from the share of liars that it is built for. rooted: the server has data."""

    name: str
    plan: Callable[[float], ridotto.Plan]
    rooted: bool = False


def noisy(noise: float) -> ridotto.CentralGaussian:
    return ridotto.CentralGaussian(noise_multiplier=noise, delta=DELTA)


def masked(robust: Any) -> ridotto.Plan:
    """Return a plan whose server sees only the sums of groups of five."""
    risks = (ridotto.Risk.SMALL_COHORT,)
    return open_plan(clip=CLIP, protocol=ridotto.Pairwise(corrupt=0.0), minimum=4, robust=robust, i_know=risks)


def individual(rule: str, **parameters: float) -> ridotto.Plan:
    return open_plan(clip=CLIP, robust=ridotto.Robust(rule, parameters))


def compressed() -> ridotto.Plan:
    """Return a plan whose updates travel rotated, a quarter of their entries, in 8 bits each."""
    return open_plan(clip=CLIP, compress=[ridotto.Rotate(), ridotto.Sample(0.25), ridotto.Quantize(bits=8)])


def relative(factor: float) -> ridotto.Plan:
    """Return a plan without a clip: it refuses what is much longer than others."""
    return open_plan(robust=ridotto.Robust("relative_norm_filter", {"factor": factor}))


def count(share: float) -> int:
    return round(share * digits.CLIENTS)


DEFENCES = (
    Defence("none", lambda share: open_plan()),
    Defence("clip", lambda share: open_plan(clip=CLIP)),
    Defence("clip, compressed", lambda share: compressed()),
    Defence("clip, noise z = 1", lambda share: open_plan(clip=CLIP, dp=noisy(1.0))),
    Defence("clip, noise z = 4", lambda share: open_plan(clip=CLIP, dp=noisy(4.0))),
    Defence("masks, 20 groups, norm bound", lambda share: masked(ridotto.NormBound(groups=20))),
    Defence("masks, 20 groups, median", lambda share: masked(ridotto.BucketedMedian(groups=20))),
    Defence("median", lambda share: individual("median")),
    Defence("trimmed mean", lambda share: individual("trimmed_mean", attackers=count(share))),
    Defence("Krum", lambda share: individual("krum", attackers=count(share))),
    Defence("Multi-Krum", lambda share: individual("multi_krum", attackers=count(share))),
    Defence("Bulyan", lambda share: individual("bulyan", attackers=min(count(share), BULYAN_MOST))),
    Defence("geometric median", lambda share: individual("geometric_median")),
    Defence("norm filter, twice the median", lambda share: relative(2.0)),
    Defence("FLTrust", lambda share: individual("fltrust"), rooted=True),
)
"""Those of the first part look at nothing, or at sums; the rules after them look at every single update."""


@dataclass(frozen=True)
class Task:
    """What is trained, and on what it is tested.

    root: clean data of the server's own, as much as a client has. test: name -> (images, labels) whose accuracy is
    measured.
    """

    clients: list[tuple[np.ndarray, np.ndarray]]
    root: tuple[np.ndarray, np.ndarray]
    trainer: ridotto.NumpyTrainer
    test: dict[str, tuple[np.ndarray, np.ndarray]]
    brightest: float
    classes: int
    rounds: int
    seed: int
    engine: str = "pool"


@dataclass(frozen=True)
class Outcome:
    """Shares of test images: taken for what they are; for a 0 because of the trigger; for the mirrored label."""

    accuracy: float
    backdoor: float
    flipped: float


def task_of(settings: Settings) -> Task:
    data = digits.non_iid(settings.data)
    each = len(data.x) // digits.CLIENTS
    # Every third of a client's digits, which come with their labels sorted; every sixth if it must be quick.
    step, hidden, rounds = (6, 32, 6) if settings.quick else (3, 64, 12)
    parts = [slice(begin, begin + each, step) for begin in range(0, len(data.x), each)]
    clients = [(data.x[part], data.y[part]) for part in parts]
    # The root is drawn from digits that no client uses.
    unused = np.arange(1, len(data.x), step)
    drawn = np.random.Generator(np.random.PCG64(settings.seed)).choice(unused, len(clients[0][1]), replace=False)
    trainer = ridotto.NumpyTrainer((digits.FEATURES, hidden, digits.CLASSES), seed=settings.seed, learning_rate=0.1)
    tests = tests_of(*data.test, digits.WHITE, digits.CLASSES)
    root = data.x[drawn], data.y[drawn]
    return Task(clients, root, trainer, tests, digits.WHITE, digits.CLASSES, rounds, settings.seed)


def tests_of(x: np.ndarray, y: np.ndarray, brightest: float, classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    others = x[y != TARGET]
    attacked = triggered(others, brightest), np.full(len(others), TARGET, y.dtype)
    return {"accuracy": (x, y), "backdoor": attacked, "flipped": (x, flipped(y, classes))}


def attack(task: Task, plan: ridotto.Plan, lies: dict[int, Lie], *, rooted: bool = False) -> Outcome:
    """Train with these liars; return what the model does on the test data. Raises RidottoError if rounds fail."""
    clients = [(*data, lies.get(place)) for place, data in enumerate(task.clients)]
    result = ridotto.simulate(
        Liars(task.trainer, task.brightest, task.classes),
        clients,
        plan,
        rounds=task.rounds,
        seed=task.seed,
        root=(*task.root, None) if rooted else None,
        engine=task.engine,
        secure_sum="modelled",
        progress=False,
    )
    return judged(task, result.vector)


def judged(task: Task, model: Vector) -> Outcome:
    """Test a model. model: float32, shape (d,)."""
    return Outcome(**{name: task.trainer.evaluate(model, data)["accuracy"] for name, data in task.test.items()})


def liars(task: Task, share: float) -> list[int]:
    """Return which clients lie: any may."""
    generator = np.random.Generator(np.random.PCG64(task.seed))
    count = round(share * len(task.clients))
    return sorted(map(int, generator.choice(len(task.clients), count, replace=False)))


def run(settings: Settings) -> list[Table]:
    task = task_of(settings)
    clean: dict[str, float] = {}
    return [poisoned(task, share, clean) for share in (SHARES[:1] if settings.quick else SHARES)]


def poisoned(task: Task, share: float, clean: dict[str, float]) -> Table:
    """Try every lie against every defence. clean: the accuracy if nobody lies, by plan, so as not to train it twice."""
    who, rows = liars(task, share), []
    kinds = {Kind.BACKDOOR: 1 / share, Kind.FLIP: 1.0, Kind.REVERSE: 1 / share}
    for defence in DEFENCES:
        plan = defence.plan(share)
        honest = plan.fingerprint().hex()
        if honest not in clean:
            clean[honest] = attack(task, plan, {}, rooted=defence.rooted).accuracy
        found = {
            kind: tried(task, plan, dict.fromkeys(who, Lie(kind, scale)), rooted=defence.rooted)
            for kind, scale in kinds.items()
        }
        rows.append((defence.name, percent(clean[honest]), *cells(found)))
        print(f"  {share:.0%} lie: {defence.name}", flush=True)
    columns = (
        "defence",
        "nobody lies: accuracy",
        "backdoor: accuracy",
        "backdoor works",
        "flipped labels: accuracy",
        "flipped",
        "reversed: accuracy",
    )
    notes = (
        f"{len(task.clients)} clients, {len(who)} of them lie in every round; {len(task.clients[0][1])} "
        f"digits each, {task.trainer.layout.length:,} parameters, {task.rounds} rounds; clip {CLIP:g}. One seed.",
        "Liars go through the same clip as everybody, which a server that sees updates can enforce. What liars do who "
        "leave it out, behind masks: `replacement`.",
    )
    title = f"Poisoning by {share:.0%} of the participants"
    return Table(f"poisoning-{share:.0%}".rstrip("%"), title, SOURCE, columns, tuple(rows), notes)


def tried(task: Task, plan: ridotto.Plan, lies: dict[int, Lie], *, rooted: bool) -> Outcome | None:
    """Return what came of it; None where rounds fail."""
    try:
        return attack(task, plan, lies, rooted=rooted)
    except RidottoError:
        return None


def measures(found: dict[Kind, Outcome | None]) -> list[float | None]:
    """Return the columns of a row: accuracy and success for two lies, accuracy for the third."""
    shown = {Kind.BACKDOOR: ("accuracy", "backdoor"), Kind.FLIP: ("accuracy", "flipped"), Kind.REVERSE: ("accuracy",)}
    return [getattr(found[kind], name, None) for kind, names in shown.items() for name in names]


def cells(found: dict[Kind, Outcome | None]) -> list[Value]:
    return [FAILED if number is None else percent(number) for number in measures(found)]
