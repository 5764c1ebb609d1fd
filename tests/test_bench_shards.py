"""The benchmark of many participants, on few: its sums are exact, and its tree adds them up."""

from __future__ import annotations

import argparse

import numpy as np
from msgspec.structs import replace

from bench.shards import make_plan, run_shard, tree_sum
from ridotto.rounds.pipeline import Pipeline


def test_two_small_shards_add_up() -> None:
    arguments = argparse.Namespace(participants=60, corrupt=0.02, committee=7, pack="3x28")
    plan = make_plan(arguments)
    plan = replace(plan, protocol=replace(plan.protocol, shard_size=30))
    shards = [run_shard(plan, 50, number, 30) for number in range(2)]
    assert [(shard.exact, shard.seats) for shard in shards] == [(True, 7)] * 2
    total = tree_sum([shard.total for shard in shards]) & np.uint32(2**28 - 1)
    assert Pipeline(plan, 50).decode(total).participants == 60
    assert all(shard.cpu_s[role] > 0 for shard in shards for role in ("participant", "seat", "coordinator"))


def test_a_tree_adds_any_number_of_sums() -> None:
    rows = [np.array([number, 1], np.uint32) for number in range(7)]
    assert list(tree_sum(rows)) == [21, 7]
