"""What is trained, on what: a `Task`, and the way from the name of a program to one.

A program is a function that returns a `Task`. A simulation, a coordinator and its participants may all run the same
program: the coordinator takes the initial model from it, participant number i trains on `clients[i]`.

    digits                         built in: scikit-learn's handwritten digits, unevenly split
    file.py:function               a function in a file
    package.module:function        a function in a module that can be imported
"""

from __future__ import annotations

import difflib
import gzip
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import ConfigError, DataError, MissingExtraError
from ridotto.learn.numpy_trainer import NumpyTrainer
from ridotto.learn.trainer import Trainer
from ridotto.simulate.partition import dirichlet

DIGITS_SEED = 30
"""Decides the test split, who has which digits and the initial weights of the built-in task."""

DIGITS_TEST = 360
"""Digits held out for testing: a fifth of 1,797."""

DIGITS_ALPHA = 1.0
"""Concentration of the label skew: every participant has some digits in plenty and hardly any of others, and the
largest has about three times as many examples as the smallest."""

DIGITS_FEWEST = 20
"""Examples that every participant has at least."""


@dataclass(frozen=True)
class Task:
    """Say what is trained, on what.

    trainer: of the model. clients: data sets as the trainer reads them, by participant's number. test: data to
    evaluate on that no client has, or None.
    """

    trainer: Trainer
    clients: Sequence[Any]
    test: Any = None

    def data_of(self, client: int | None) -> Any:
        """Return the data of one participant; None means the only one. Raises ConfigError if there is no such client.

        >>> digits(clients=3).data_of(2)[0].shape[1]
        64
        """
        count = len(self.clients)
        if client is None and count == 1:
            return self.clients[0]
        if not count:
            raise ConfigError(
                "the program has no data for participants: let its task have `clients`, or take part from a script of "
                "your own with `ridotto.rounds`"
            )
        if client is None:
            raise ConfigError(f"the program has data for {count} participants: say which is yours, 0 to {count - 1}")
        if not 0 <= client < count:
            raise ConfigError(f"there is no client {client}: the program has data for 0 to {count - 1}")
        return self.clients[client]


def load_task(reference: str, options: Mapping[str, Any] | None = None, folder: Path | None = None) -> Task:
    """Call the program that `reference` names, with `options` as keyword arguments, and return its task.

    folder: what the path of a file is relative to; the current one by default.
    Raises ConfigError if there is no such file, module or function, it does not take these options, or returns
    something else. Whatever the program itself raises comes through as it is.
    """
    program = digits if reference == "digits" else _program(reference, folder or Path())
    given = dict(options or {})
    try:
        inspect.signature(program).bind(**given)
    except TypeError as error:
        accepted = ", ".join(inspect.signature(program).parameters) or "none"
        raise ConfigError(
            f'the program "{reference}" can\'t be called: {error}; its options are: {accepted}'
        ) from error
    task = program(**given)
    if not isinstance(task, Task):
        raise ConfigError(f'the program "{reference}" returned {type(task).__name__}, expected a ridotto.Task')
    return task


def digits(
    *,
    clients: int = 10,
    seed: int = DIGITS_SEED,
    epochs: int = 5,
    batch_size: int = 16,
    learning_rate: float = 0.2,
    alpha: float = DIGITS_ALPHA,
) -> Task:
    """Classify scikit-learn's 1,797 handwritten digits, split unevenly and by label, with a network of 32 hidden units.

    seed: decides the test split, who has which digits and the initial weights. alpha: the smaller, the more the
    participants differ. A fifth of the digits is held out for testing.
    Raises DataError if there are too few digits for so many clients, MissingExtraError without scikit-learn.

    >>> task = digits(clients=10)
    >>> sum(len(y) for _, y in task.clients), len(task.test[1])
    (1437, 360)
    """
    trainer = NumpyTrainer((64, 32, 10), seed=seed, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    x, y = _read_digits()
    rng = insecure_seeded_rng(seed)
    order = np.random.default_rng(seed).permutation(len(y))
    test, train = order[:DIGITS_TEST], order[DIGITS_TEST:]
    parts = dirichlet(y[train], clients, alpha, rng.child("digits"), DIGITS_FEWEST)
    return Task(trainer, [(x[train[part]], y[train[part]]) for part in parts], (x[test], y[test]))


def _read_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the digits, x float32 in 0 .. 1, shape (1797, 64), and y int64, shape (1797,).

    The same as `learn.sklearn_trainer.digits`, read from the file that scikit-learn ships. Importing scikit-learn takes
    a second, and ten participants on one machine would each take it.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise MissingExtraError("scikit-learn", "sklearn")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path) as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"scikit-learn's digits can't be read from {path}: {error}") from error
    return (table[:, :-1] / 16).astype(np.float32), np.ascontiguousarray(table[:, -1])


def _program(reference: str, folder: Path) -> Callable[..., object]:
    source, colon, name = reference.rpartition(":")
    if not colon or not source or not name.isidentifier():
        raise ConfigError(
            f'"{reference}" is no program: expected "digits", "file.py:function" or "package.module:function"'
        )
    module = _module_in_file(folder / source) if source.endswith(".py") else _module(source)
    program = getattr(module, name, None)
    if not callable(program):
        functions = [
            key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")
        ]
        near = difflib.get_close_matches(name, functions, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"its functions are: {', '.join(functions) or 'none'}"
        raise ConfigError(f'{source} has no function "{name}"; {hint}')
    return program  # type: ignore[no-any-return]


def _module_in_file(path: Path) -> ModuleType:
    """Import a file as its own module; what it imports from its own folder is found, as for `python file.py`."""
    if not path.is_file():
        raise ConfigError(f"there is no file {path}: give the path of a Python file, relative to {path.parent}")
    # A name of its own: a program called json.py must not stand in for the module of that name.
    name = f"ridotto_program_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} can't be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up there
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ConfigError(f'there is no module "{name}": install it, or give a file as "file.py:function"') from error
