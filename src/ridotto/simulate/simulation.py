"""`ridotto.simulate`: many participants on one machine or many, with the protocols of a real federation.

import ridotto

result = ridotto.simulate(trainer, clients, rounds=20, seed=1, test=(x_test, y_test))
result.history, result.model, result.plot(), result.save("run-1")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridotto.core.rng import SecretRng, insecure_seeded_rng
from ridotto.core.vector import Vector
from ridotto.errors import ConfigError, DataError
from ridotto.learn.algorithms import require_trainer
from ridotto.learn.trainer import LocalResult, Trainer
from ridotto.rounds.plan import Plan
from ridotto.rounds.private import Draw
from ridotto.rounds.vault import Vault
from ridotto.simulate.arguments import check_clients, check_folder, check_kind, check_words, seed_of, whole
from ridotto.simulate.buffered import BufferedRounds
from ridotto.simulate.checkpoint import Checkpoint, read_checkpoint
from ridotto.simulate.choose import choose, make_engine
from ridotto.simulate.clients import ClientId, Clients, Cohort, read_schedule
from ridotto.simulate.devices import Fleet
from ridotto.simulate.direct import DirectRounds
from ridotto.simulate.faults import Fault, read_faults
from ridotto.simulate.helpers import with_own_helpers
from ridotto.simulate.job import Engine
from ridotto.simulate.machines import MachineRounds
from ridotto.simulate.pace import Buffered, Pace, Synchronous, check_pace
from ridotto.simulate.privacy import account_of, draw_of, expected_in_mean, kept_apart, settled
from ridotto.simulate.result import Result
from ridotto.simulate.run import Driver, Run
from ridotto.simulate.sampling import Sampler, Uniform
from ridotto.simulate.spool import Spool
from ridotto.simulate.table import Row
from ridotto.simulate.threads import one_thread
from ridotto.simulate.timing import Timing

if TYPE_CHECKING:
    from ridotto.simulate.progress import RoundProgress

DEFAULT_COHORT = 10
"""Participants of a round where no plan says otherwise, as in the first experiments with FedAvg (McMahan et al.)."""

ACCURACY_BOUND, METRIC_BOUND = 1.0, 100.0
"""Bounds of metrics where no plan names them: an accuracy is a fraction, and a loss above 100 is of no interest. The
resolution of a masked metric is its bound / 2^19."""

SECURE_SUMS = ("machines", "modelled")

MANY_MACHINES = 50
"""Participants whose masks and signatures take about a second a round, so that a word about it is welcome."""


def simulate(
    trainer: Trainer,
    clients: Sequence[Any] | Mapping[str, Any],
    plan: Plan | None = None,
    *,
    rounds: int,
    seed: int,
    test: Any = None,
    test_every: int = 1,
    root: Any = None,
    engine: str = "auto",
    workers: int | None = None,
    batch: int | None = None,
    secure_sum: str = "machines",
    schedule: Sequence[Sequence[ClientId]] | None = None,
    sampling: Sampler | None = None,
    faults: Sequence[Fault] = (),
    devices: Fleet | None = None,
    pace: Pace | None = None,
    names: Sequence[str] | None = None,
    on_client_error: str = "raise",
    max_failures: int = 3,
    on_round: Callable[[Row], None] | None = None,
    progress: bool | RoundProgress = True,
    save: str | Path | None = None,
    resume: str | Path | None = None,
) -> Result:
    """Train one model over many clients' data, round by round, with the plan's secure sum.

    clients: data sets as the trainer reads them, in a sequence (`ridotto.ClientData` holds a million) or by name;
    names: for a sequence. plan: `default_plan` makes one if there is none. rounds: attempts, failed ones included.
    seed: decides everything that is random; the same arguments give the same bits, whatever the engine. test: data on
    which the model is evaluated after every `test_every`-th round and the last. root: clean data of the server's own,
    for a robust rule that compares with an update of its (fltrust).

    engine: "inline", "vectorised" (many clients in one computation), "pool" (processes), "ray" (a cluster), or "auto",
    which measures and says what it took. workers: of pool and ray; batch: clients trained at once.
    secure_sum: "machines" runs the plan's real protocol; "modelled" takes the sum directly, which gives the same model
    bit for bit (with `CommitteeGaussian`: with as much noise), and computes what the protocol would have cost and whom
    it would have lost.

    schedule: a row of clients for each round, by name or position. sampling: how clients are drawn where there is no
    schedule, `ridotto.sampling.Uniform()` by default. faults: see `ridotto.simulate.faults`.
    devices: a fleet of `ridotto.fleets`: clients take time and are there at their hours; pace: what a round waits for,
    of `ridotto.pace`; both need a modelled sum. on_client_error: "raise"
    what a client's training raises, or "drop" the client from its round and count it in the history. max_failures: so
    many failed rounds in a row end the simulation. on_round: called after each round with its line of the history.
    progress: a bar on standard error, if that is a terminal.

    save: a folder for checkpoints and, at the end, for what `Result.save` writes; Ctrl-C leaves a state there that
    can be resumed. resume: a folder to go on from, up to `rounds` in all; it is also where the rest is saved.

    Raises PlanError or ConfigError before anything is trained, if the arguments do not fit together; DataError, naming
    client and round, for data that can't be trained on; SimulationFailedError, which holds the `result` so far, when
    too many rounds failed; SimulationInterruptedError, likewise, on Ctrl-C. What else a trainer raises comes through
    with its own traceback and a note that names client and round.

    >>> import numpy as np
    >>> x = np.eye(10, dtype=np.float32)
    >>> from ridotto.learn.numpy_trainer import NumpyTrainer
    >>> result = simulate(NumpyTrainer((10, 10), seed=1), [(x, np.arange(10))] * 6, rounds=2, seed=1)
    >>> result.table["participants"]
    [6, 6]
    """
    rounds, test_every, max_failures = (
        whole(name, number, 1)
        for name, number in (("rounds", rounds), ("test_every", test_every), ("max_failures", max_failures))
    )
    check_words(secure_sum=(secure_sum, SECURE_SUMS), on_client_error=(on_client_error, ("raise", "drop")))
    seed = seed_of(seed)
    _check_kinds(trainer, plan, sampling, devices, pace)
    check_clients(clients)
    rng = insecure_seeded_rng(seed)
    known = Clients.of(clients, names)
    plan = with_own_helpers(plan or default_plan(trainer, known, rng, drop=on_client_error == "drop"), known)
    require_trainer(plan.algorithm.build(), trainer)
    timing = _timing(devices, pace, plan, known, rng, secure_sum, schedule, sampling)
    drawn = draw_of(sampling or Uniform(), schedule, timing, plan, len(known))
    before, plan = _before(resume, plan, rounds, seed, known, trainer, drawn)
    cohorts = _cohorts(known, plan, rounds, rng, schedule, sampling or Uniform()) if timing is None else _nobody
    read = read_faults(faults, known, plan)
    privacy = account_of(plan, before, rounds, trainer.layout, drawn, timing)
    cohorts = kept_apart(plan, cohorts, len(known), rounds)
    done = before.rounds if before else 0
    folder = None if save is None and resume is None else Path(save if save is not None else resume or "")
    if folder is not None:
        check_folder(folder)
    vault = _vault(trainer, plan, known, before, rng, drawn, root)
    kept = before.vectors()[2] if before else {}
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        choice = choose(engine, trainer, known, plan, rng, rounds - done, workers, batch)
        made = make_engine(choice, trainer, known, plan, rng)
        stack.callback(made.close)
        driver = _driver(secure_sum, vault, made, known, rng, read, kept, on_client_error == "drop", timing)
        run = Run(driver, made, vault, kept, trainer, known, seed, test, folder, before, privacy)
        watcher = stack.enter_context(run.progress(progress, rounds))
        watcher.note(
            f"engine: {made.description}" + (f" ({choice.why})" if choice.why else "") + _hint(secure_sum, plan)
        )
        stack.enter_context(run.guard())
        for number in range(done + 1, rounds + 1):
            if run.stop_if_spent():
                break
            evaluate = number % test_every == 0 or number == rounds or run.last_affordable()
            run.step(number, cohorts(number), evaluate=evaluate)
            if on_round is not None:
                on_round(run.rows[-1])
            run.stop_if_hopeless(max_failures)
        return run.end()


def default_plan(trainer: Trainer, clients: Clients, rng: SecretRng, *, drop: bool = False) -> Plan:
    """Return the plan of a simulation that was given none: ten clients a round (all, if fewer), masked pairwise.

    Every metric that training reports becomes part of the sum. Which ones these are shows one trial training of the
    first client, whose result is thrown away. drop: if that fails, the next client is tried, and so on.
    Raises PlanError where so few clients can't hide anyone: that takes a plan that says so.
    """
    trial = _trial(trainer, clients, rng, drop)
    bounds = {name: ACCURACY_BOUND if name == "accuracy" else METRIC_BOUND for name in trial.metrics}
    return Plan(cohort=min(len(clients), DEFAULT_COHORT), metrics=bounds)


def _hint(secure_sum: str, plan: Plan) -> str:
    if secure_sum != "machines" or plan.cohort < MANY_MACHINES or plan.protocol_name == "ideal":
        return ""
    return '\nthe real protocol runs; secure_sum="modelled" gives the same model in a fraction of the time'


def _trial(trainer: Trainer, clients: Clients, rng: SecretRng, drop: bool) -> LocalResult:
    """Train one client: the first, or the first that can be trained."""
    last = len(clients) - 1 if drop else 0
    for position in range(last):
        try:
            return trainer.train(trainer.initial(), clients.data[position], rng.child("trial"))
        except Exception:  # noqa: S112 - clients that can't be trained are dropped, and the history will say so
            continue
    try:
        return trainer.train(trainer.initial(), clients.data[last], rng.child("trial"))
    except DataError as error:
        raise DataError(f"{clients.names[last]}: {error}") from error
    except Exception as error:
        error.add_note(f"This happened while {clients.names[last]} was training for a trial, before round 1.")
        raise


def _vault(
    trainer: Trainer,
    plan: Plan,
    clients: Clients,
    before: Checkpoint | None,
    rng: SecretRng,
    drawn: Draw,
    root: Any,
) -> Vault:
    model, state = (trainer.initial(), None) if before is None else before.vectors()[:2]

    def noise(number: int) -> SecretRng:
        """Address the coordinator's noise by round: it follows from the seed, so a simulation hides nothing."""
        return rng.child("noise", "central", number)

    def own_update(received: Vector, number: int) -> Vector:
        """Train on the server's own data, as a client would."""
        update: Vector = trainer.train(received, root, rng.child("root", number)).vector - received
        return update

    return Vault(
        plan,
        trainer.layout,
        model,
        state,
        population=len(clients),
        noise=noise,
        expected=expected_in_mean(drawn, len(clients)) if plan.dp else None,
        root=None if root is None else own_update,
        kept=Spool(),
    )


def _before(
    resume: str | Path | None, plan: Plan, rounds: int, seed: int, clients: Clients, trainer: Trainer, drawn: Draw
) -> tuple[Checkpoint | None, Plan]:
    """Return what is to be resumed, if anything is, and the plan with its noise worked out."""
    found = None if resume is None else read_checkpoint(Path(resume))
    plan = settled(plan, found, rounds, trainer.layout, drawn)
    if found is not None:
        found.check(plan, seed, len(clients), trainer.layout)
    return found, plan


def _cohorts(
    clients: Clients,
    plan: Plan,
    rounds: int,
    rng: SecretRng,
    schedule: Sequence[Sequence[ClientId]] | None,
    sampling: Sampler,
) -> Callable[[int], Cohort]:
    """Return who is asked in which round; checked here and now, drawn when it is needed."""
    if schedule is not None:
        rows = read_schedule(schedule, clients, plan, rounds)
        return lambda number: rows[number - 1]
    sampling.check(clients, plan.cohort)
    return lambda number: sampling.cohort(number, clients, plan.cohort, rng)


def _nobody(number: int) -> Cohort:
    """Stand in where the time of day decides who is asked."""
    return ()


def _timing(
    devices: Fleet | None,
    pace: Pace | None,
    plan: Plan,
    clients: Clients,
    rng: SecretRng,
    secure_sum: str,
    schedule: Sequence[Sequence[ClientId]] | None,
    sampling: Sampler | None,
) -> Timing | None:
    """Put devices and pace together. Raises ConfigError for what does not go with them."""
    if devices is None:
        if pace is not None:
            raise ConfigError("a pace needs devices that take time: give `devices`, one of ridotto.fleets")
        return None
    if secure_sum != "modelled":
        raise ConfigError('devices take part in modelled sums only: take secure_sum="modelled"')
    if schedule is not None or not isinstance(sampling, Uniform | None):
        raise ConfigError("with devices, clients are drawn uniformly among those that are there: leave out the rest")
    chosen = pace or Synchronous()
    check_pace(chosen, plan, len(clients))
    return Timing(devices, chosen, plan, clients, rng)


def _driver(
    secure_sum: str,
    vault: Vault,
    engine: Engine,
    clients: Clients,
    rng: SecretRng,
    faults: Sequence[Fault],
    kept: dict[int, Vector],
    drop: bool,
    timing: Timing | None,
) -> Driver:
    if secure_sum == "machines":
        return MachineRounds(vault, engine, clients, rng, faults, kept, drop)
    if timing is not None and isinstance(timing.pace, Buffered):
        if faults:
            raise ConfigError(
                "an asynchronous simulation has no rounds to put faults into; devices leave by themselves"
            )
        return BufferedRounds(vault, engine, clients, rng, timing, drop)
    return DirectRounds(vault, engine, clients, rng, faults, kept, drop, timing)


def _check_kinds(
    trainer: Trainer, plan: Plan | None, sampling: Sampler | None, devices: Fleet | None, pace: Pace | None
) -> None:
    """Refuse what types would, for those who run no type checker. Raises ConfigError."""
    check_kind("trainer", trainer, ("layout", "initial", "train", "evaluate"), "ridotto.NumpyTrainer((64, 10), seed=1)")
    if plan is not None and not isinstance(plan, Plan):
        raise ConfigError(f"plan is a ridotto.Plan, such as ridotto.Plan(cohort=10), not a {type(plan).__name__}")
    if sampling is not None:
        check_kind("sampling", sampling, ("check", "cohort"), "ridotto.sampling.Uniform()")
    if devices is not None and not isinstance(devices, Fleet):
        raise ConfigError(f"devices is a fleet, such as ridotto.fleets.uniform(), not a {type(devices).__name__}")
    if pace is not None and not isinstance(pace, Pace):
        raise ConfigError(f"pace is an object such as ridotto.pace.Synchronous(), not a {type(pace).__name__}")
