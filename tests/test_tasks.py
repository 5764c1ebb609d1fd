"""Programs: from a name to a task, and one sentence for each way in which that can fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ridotto.errors import ConfigError, DataError, MissingExtraError
from ridotto.learn.numpy_trainer import NumpyTrainer
from ridotto.tasks import Task, digits, load_task

PROGRAM = """
import numpy as np
import ridotto
from ridotto.learn.numpy_trainer import NumpyTrainer

def make(clients: int = 2, size: int = 3):
    data = [(np.ones((size, 4), np.float32), np.zeros(size, np.int64)) for _ in range(clients)]
    return ridotto.Task(NumpyTrainer((4, 2), seed=1), data)

def number():
    return 3

def broken():
    return 1 / 0

constant = 5
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "program_of_tests.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def test_calls_the_function_of_a_file_with_its_options(folder):
    task = load_task("program_of_tests.py:make", {"clients": 3}, folder)
    assert len(task.clients) == 3
    assert task.test is None


def test_calls_the_function_of_a_module():
    assert load_task("ridotto.tasks:digits", {"clients": 3}).trainer.layout.length == 64 * 32 + 32 + 32 * 10 + 10


def test_a_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_tests.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "main_of_tests.py").write_text("from neighbour_of_tests import make\n", encoding="utf-8")
    assert len(load_task("main_of_tests.py:make", {}, tmp_path).clients) == 2


@pytest.mark.parametrize(
    ("reference", "options", "sentence"),
    [
        ("missing.py:make", {}, "there is no file .*missing.py: give the path of a Python file"),
        ("program_of_tests.py:mak", {}, 'has no function "mak"; did you mean "make"'),
        ("program_of_tests.py:xyz", {}, "its functions are: make, number, broken"),
        ("program_of_tests.py:constant", {}, 'has no function "constant"'),
        ("program_of_tests.py:number", {}, r"returned int, expected a ridotto\.Task"),
        ("program_of_tests.py:make", {"sise": 3}, "unexpected keyword argument 'sise'; its options are: clients, size"),
        ("no_such_module_of_tests:make", {}, 'there is no module "no_such_module_of_tests"'),
        ("ridotto.nowhere:make", {}, 'there is no module "ridotto.nowhere"'),
        ("digitz", {}, '"digitz" is no program: expected "digits", "file.py:function"'),
        ("digits", {"client": 3}, "its options are: clients, seed"),
    ],
)
def test_says_what_is_wrong_with_a_program(folder, reference, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_task(reference, options, folder)


def test_what_a_program_itself_raises_comes_through(folder):
    with pytest.raises(ZeroDivisionError):
        load_task("program_of_tests.py:broken", {}, folder)


def test_a_module_that_misses_another_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "needs_of_tests.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_task("needs_of_tests:make")


def test_digits_are_those_of_scikit_learn():
    from ridotto.learn.sklearn_trainer import digits as sklearn_digits
    from ridotto.tasks import _read_digits

    for ours, theirs in zip(_read_digits(), sklearn_digits(), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_digits_are_split_unevenly_and_none_is_lost():
    task = digits()
    sizes = [len(y) for _, y in task.clients]
    assert sum(sizes) + len(task.test[1]) == 1797
    assert max(sizes) > 2 * min(sizes)
    shares = [np.bincount(y, minlength=10) / len(y) for _, y in task.clients]
    assert min(share.max() for share in shares) > 0.15  # every client has a digit well above a tenth


def test_the_same_seed_splits_in_the_same_way():
    first, second, other = digits(seed=1), digits(seed=1), digits(seed=2)
    np.testing.assert_array_equal(first.clients[3][0], second.clients[3][0])
    np.testing.assert_array_equal(first.trainer.initial(), second.trainer.initial())
    assert not np.array_equal(first.test[1], other.test[1])


def test_too_many_clients_are_refused():
    with pytest.raises(DataError, match="too few for 100 clients"):
        digits(clients=100)


def test_says_that_scikit_learn_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ridotto\[sklearn\]'"):
        digits()


def test_says_that_the_file_of_digits_is_missing(monkeypatch, tmp_path):
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    with pytest.raises(DataError, match=r"digits\.csv\.gz"):
        digits()


def test_finds_the_data_of_a_client():
    task = Task(NumpyTrainer((4, 2), seed=1), ["a", "b"])
    assert task.data_of(1) == "b"
    assert Task(task.trainer, ["only"]).data_of(None) == "only"
    with pytest.raises(ConfigError, match="say which is yours, 0 to 1"):
        task.data_of(None)
    with pytest.raises(ConfigError, match="there is no client 2"):
        task.data_of(2)
