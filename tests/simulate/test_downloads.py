"""Deltas as downloads in a simulation: the same bytes and bits whichever way a round is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ridotto
from ridotto.core.tensors import write_model
from ridotto.core.vector import Field, Layout
from ridotto.errors import ConfigError
from ridotto.learn.compress.delta import delta_size
from ridotto.rounds.plan import Ideal, Plan, Risk
from ridotto.rounds.vault import Vault
from ridotto.simulate.downloads import Downloads
from ridotto.simulate.faults import ANNOUNCE, DropOut
from tests.simulate.test_engines import drawn, network

both = pytest.mark.parametrize("secure_sum", ["machines", "modelled"])
MODEL_BYTES = len(write_model(network().initial(), network().layout))
DELTA_BYTES = delta_size(network().layout.length, 4)


def run(secure_sum: str, bits: int | None = 4, **options: Any) -> ridotto.Result:
    plan = Plan(cohort=4, minimum=2, protocol=Ideal(), i_know=tuple(Risk), download_bits=bits)
    settings = {"rounds": 6, "seed": 4, "progress": False, "test": drawn()[0]}
    return ridotto.simulate(network(), drawn(), plan, secure_sum=secure_sum, **(settings | options))


def measured(result: ridotto.Result) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in result.table.rows]


CLOCKS = {"seconds_train", "seconds_sum", "seconds_test", "secure_sum"} | {
    f"modelled_{side}_cpu_s" for side in ("participant", "coordinator")
}


def test_modelled_and_machines_agree_on_bytes_and_bits() -> None:
    faults = [DropOut("client-03", None, "Plain"), DropOut("client-05", 2, ANNOUNCE), DropOut("client-07", 3)]
    real, modelled = (run(how, faults=faults) for how in ("machines", "modelled"))
    assert real.digest == modelled.digest
    assert measured(real) == measured(modelled)
    assert run("modelled", None, faults=faults).digest != real.digest


@both
def test_counts_the_deltas_of_missed_rounds_and_whole_models_beyond(secure_sum: str) -> None:
    # Clients 0 and 1 are always there; 2 misses two rounds; 3 comes once in a while.
    schedule = [[0, 1, 2, 4], [0, 1, 4, 5], [0, 1, 4, 5], [0, 1, 2, 4], [0, 1, 3, 4], [0, 1, 2, 4]]
    result, whole = (run(secure_sum, bits, schedule=schedule) for bits in (4, None))
    assert MODEL_BYTES // DELTA_BYTES >= 3
    new = [4, 1, 0, 0, 1, 0]
    deltas = [0, 3, 4, 3 + 3, 3, 3 + 2]
    for row, other, fetched, steps in zip(result.table.rows, whole.table.rows, new, deltas, strict=True):
        saved = 4 * MODEL_BYTES - fetched * MODEL_BYTES - steps * DELTA_BYTES
        assert 4 * (other["bytes_down"] - row["bytes_down"]) == pytest.approx(saved, abs=4)


@both
def test_who_has_the_newest_model_fetches_nothing(secure_sum: str) -> None:
    """A round that fails changes no model: the same clients need none in the next one."""
    schedule = [[0, 1, 2, 3]] * 3
    faults = [DropOut(client, 2, "Plain") for client in range(4)]
    rows = run(secure_sum, schedule=schedule, rounds=3, faults=faults).table.rows
    assert rows[1]["failure"]
    assert rows[0]["bytes_down"] - MODEL_BYTES == rows[2]["bytes_down"]
    # Who left hears nothing of the end: less than 100 bytes.
    assert 0 <= rows[2]["bytes_down"] + DELTA_BYTES - rows[1]["bytes_down"] < 100


@both
def test_a_resumed_simulation_counts_on(secure_sum: str, tmp_path: Path) -> None:
    whole = run(secure_sum)
    run(secure_sum, rounds=3, save=tmp_path)
    resumed = run(secure_sum, resume=tmp_path)
    assert resumed.digest == whole.digest
    assert measured(resumed) == measured(whole)


def test_remembers_only_who_is_near_enough() -> None:
    layout = Layout((Field("w", (400,), "float32"),))
    plan = Plan(cohort=4, protocol=Ideal(), i_know=tuple(Risk), download_bits=8)
    vault = Vault(plan, layout, np.zeros(400, np.float32))
    assert vault.most_deltas == 3

    def move() -> None:
        vault._set_model(vault.model + np.float32(1))

    downloads, everybody = Downloads(vault, 5), np.arange(5)
    downloads.fetch(np.array([0]))
    for version in range(1, 5):
        move()
        downloads.fetch(np.array([version]))
    sizes = [len(vault.model_bytes), *(delta_size(400, 8) * behind for behind in (3, 2, 1, 0))]
    assert downloads.sizes(everybody).tolist() == sizes
    again = Downloads(vault, 5)
    again.recall(downloads.memory)
    assert again.sizes(everybody).tolist() == sizes
    move()
    assert again.sizes(everybody).tolist() == [sizes[0], sizes[0], *sizes[1:4]]


def test_an_asynchronous_simulation_refuses_deltas() -> None:
    with pytest.raises(ConfigError, match="leave download_bits out of the plan"):
        run("modelled", devices=ridotto.fleets.uniform(), pace=ridotto.pace.Buffered(size=3, concurrency=6))


def test_devices_wait_less_for_deltas() -> None:
    deltas, whole = (run("modelled", bits, devices=ridotto.fleets.uniform()) for bits in (4, None))
    assert deltas.table["virtual_s"][0] == whole.table["virtual_s"][0]
    assert sum(deltas.table["virtual_s"]) < sum(whole.table["virtual_s"])
