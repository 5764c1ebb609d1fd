"""Receipts and proofs over HTTP, and coordinators that are killed: one receipt for every attempt, and only one."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from ridotto.coordinator.blobs import RECEIPTS
from ridotto.coordinator.receipts import FULL, PUBLIC, Seal, proof_for
from ridotto.coordinator.store import RowKind
from ridotto.core.fixedpoint import container
from ridotto.core.rng import OsRng
from ridotto.core.wire import Attached, digest
from ridotto.errors import PeerProtocolError
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.inclusion import Inclusion, check_inclusion
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Committee, Helpers, Ideal, Oneshot, Pairwise, Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.receipt import SignedReceipt, check_sum, decode_receipt
from ridotto.rounds.round import ParticipantRound
from ridotto.rounds.service import ROUNDS_PATH
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import Session, session_id
from ridotto.trust.audit import audit
from tests.coordinator.bench import (
    COORDINATOR_KEY,
    PARAMETERS,
    Mini,
    authorization,
    identity,
    make_federation,
    make_plan,
    make_settings,
    opened,
    rng_of,
    update_of,
)
from tests.coordinator.test_committee import HELPERS, KEYS, served_plan
from tests.coordinator.test_restart import NAMES, STEPS, Scene


def ideal_plan(**changes: object) -> Plan:
    return make_plan(**({"protocol": Ideal(), "i_know": (Risk.NO_PROTECTION,)} | changes))


PLANS = {
    "ideal": ideal_plan(),
    "pairwise": make_plan(),
    "oneshot": make_plan(protocol=Oneshot(corrupt=0.0), i_know=(Risk.SMALL_COHORT,)),
    "committee": served_plan(),
    "oneshot hybrid": make_plan(protocol=Oneshot(corrupt=0.0, seal="hybrid"), i_know=(Risk.SMALL_COHORT,)),
    "committee hybrid": served_plan(Committee(corrupt=0.0, helpers=Helpers(keys=KEYS), seal="hybrid")),
}

POLICY = Policy(
    protocols=tuple(PROTOCOLS), min_corrupt=0.0, min_participants=2, i_know=(Risk.NO_PROTECTION, Risk.SMALL_COHORT)
)


class Remembering(Mini):
    """A participant that remembers the sessions it was shown and what it sent, for every attempt."""

    def __init__(self, name: str, client: httpx.AsyncClient, dies_before: str = "") -> None:
        super().__init__(name, client, dies_before, policy=POLICY)
        self.shown: dict[int, Session] = {}
        self.sent: dict[int, bytes] = {}

    async def _carry_out(self, attempt, machine, effects):  # type: ignore[no-untyped-def]
        for effect in effects:
            message = getattr(effect, "message", None)
            if isinstance(message, Attached):
                self.sent[attempt] = message.contribution
        if machine._announce is not None:
            self.shown[attempt] = machine._announce.session
        return await super()._carry_out(attempt, machine, effects)

    async def proof(self, number: int, sid: bytes) -> httpx.Response:
        target = f"{ROUNDS_PATH}/{number}/proof?session={sid.hex()}"
        return await self.client.get(target, headers=authorization(self.name, "GET", target, b""))


async def run_all(client: httpx.AsyncClient, helpers: Iterable[str] = (), **dies_before: str) -> list[Remembering]:
    minis = [Remembering(name, client, dies_before.get(name, "")) for name in NAMES]
    serving = [Mini(name, client, serves=True, policy=POLICY) for name in helpers]
    await asyncio.gather(*(mini.run() for mini in [*minis, *serving]))
    return minis


async def receipt_of(client: httpx.AsyncClient, number: int = 1, attempt: int = 0) -> bytes:
    answer = await client.get(f"{ROUNDS_PATH}/{number}/receipt?attempt={attempt}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.content


async def wait_for_record(client: httpx.AsyncClient) -> None:
    while (await client.get(f"{ROUNDS_PATH}/1")).status_code == 404:
        await asyncio.sleep(0.01)


def files(folder: Path, form: str) -> list[Path]:
    return sorted((folder / RECEIPTS).glob(f"*.{form}.*"))


@pytest.mark.parametrize("protocol", PLANS)
async def test_every_round_has_a_receipt_and_everybody_in_the_sum_a_proof(protocol: str, tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path, make_settings(PLANS[protocol], rounds=2))) as client:
        minis = await run_all(client, HELPERS if protocol.startswith("committee") else ())
        for number in (1, 2):
            data = await receipt_of(client, number)
            said = audit(data, COORDINATOR_KEY.public)
            assert f"signed this receipt of round {number}, attempt {number}" in said[0]
            receipt = decode_receipt(data).receipt
            for mini in minis:
                session = mini.shown[number]
                proof = msgspec.json.decode((await mini.proof(number, session_id(session))).content, type=Inclusion)
                found = check_inclusion(receipt, session, mini.name, mini.sent[number], proof)
                assert found.count == 4
    full = [path.read_bytes() for path in files(tmp_path, FULL)]
    assert len(full) == 2
    for data in full:
        said = audit(data, COORDINATOR_KEY.public)
        assert any("The record of the round is here" in one for one in said)
        assert any("4 participants were asked, at least" in one for one in said)


@pytest.mark.parametrize("protocol", PLANS)
async def test_what_is_published_names_no_participant_but_seats(protocol: str, tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path, make_settings(PLANS[protocol]))) as client:
        await run_all(client, HELPERS if protocol.startswith("committee") else ())
        signed = decode_receipt(await receipt_of(client))
    assert (signed.record, signed.sessions) == (None, ())
    seated = protocol.split(maxsplit=1)[0] in ("oneshot", "committee")
    assert all((one.committee is not None) == seated for one in signed.receipt.sums)


async def test_who_is_not_in_the_sum_is_told_so_and_gets_nobody_elses_proof(tmp_path: Path) -> None:
    plan = ideal_plan(train_s=0.4)
    async with opened(make_federation(tmp_path, make_settings(plan))) as client:
        minis = await run_all(client, p3="Plain")
        sid = session_id(minis[0].shown[1])
        assert decode_receipt(await receipt_of(client)).receipt.sums[0].count == 3
        refused = await minis[3].proof(1, sid)
        assert (refused.status_code, refused.json()["type"]) == (404, "about:blank#not-included")
        assert refused.json()["detail"] == "no contribution of p3 is in the sum of this session"
        # Whoever asks gets its own proof, whatever it would like to have; another's does not fit.
        stolen = msgspec.json.decode((await minis[0].proof(1, sid)).content, type=Inclusion)
        receipt = decode_receipt(await receipt_of(client)).receipt
        for index in range(3):
            changed = msgspec.structs.replace(stolen, index=index)
            with pytest.raises(PeerProtocolError, match="does not hold"):
                check_inclusion(receipt, minis[1].shown[1], "p1", minis[1].sent[1], changed)


async def test_refuses_what_is_not_there_and_who_is_not_enrolled(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path, make_settings(PLANS["ideal"]))) as client:
        minis = await run_all(client)
        sid = session_id(minis[0].shown[1])
        for answer, status, word in (
            (await client.get(f"{ROUNDS_PATH}/2/receipt"), 404, "not-found"),
            (await client.get(f"{ROUNDS_PATH}/1/receipt?attempt=2"), 404, "not-found"),
            (await client.get(f"{ROUNDS_PATH}/1/receipt?attempt=x"), 422, "malformed"),
            (await client.get(f"{ROUNDS_PATH}/x/receipt"), 404, "not-found"),
            (await client.get(f"{ROUNDS_PATH}/1/proof?session={sid.hex()}"), 401, "unauthenticated"),
            (await Remembering("stranger", client).proof(1, sid), 403, "not-enrolled"),
            (await minis[0].proof(2, sid), 404, "not-found"),
            (await minis[0].proof(1, bytes(32)), 404, "not-found"),
            (await minis[0].proof(1, b"short"), 422, "malformed"),
        ):
            assert (answer.status_code, answer.json()["type"]) == (status, f"about:blank#{word}"), answer.text


async def test_a_receipt_that_somebody_has_deleted_is_the_operators_business(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(make_federation(tmp_path, make_settings(PLANS["ideal"]))) as client:
        await run_all(client)
        files(tmp_path, PUBLIC)[0].unlink()
        answer = await client.get(f"{ROUNDS_PATH}/1/receipt")
    assert (answer.status_code, answer.json()["type"]) == (503, "about:blank#storage")
    assert str(tmp_path) not in answer.text
    assert "is gone" in caplog.text


async def test_a_failed_attempt_has_a_receipt_too(tmp_path: Path) -> None:
    plan = ideal_plan(train_s=0.3)
    federation = make_federation(tmp_path, make_settings(plan, max_failures=1))
    async with opened(federation) as client:
        minis = await run_all(client, p2="Plain", p3="Plain")
        data = await receipt_of(client)
        assert "opened no sum" in audit(data, COORDINATOR_KEY.public)[1]
        refused = await minis[0].proof(1, session_id(minis[0].shown[1]))
        assert (refused.status_code, refused.json()["type"]) == (404, "about:blank#not-found")
    signed = decode_receipt(files(tmp_path, FULL)[0].read_bytes())
    assert signed.record is not None
    assert signed.record.record.failure


async def test_an_attempt_can_be_asked_for_after_the_round_was_tried_again(tmp_path: Path) -> None:
    plan = ideal_plan(train_s=0.3)
    async with opened(make_federation(tmp_path, make_settings(plan, max_failures=3))) as client:
        dying = dict.fromkeys(NAMES[2:], "Plain")
        first = asyncio.create_task(run_all(client, **dying))
        await wait_for_record(client)
        await asyncio.gather(first, *(Remembering(name, client).run() for name in NAMES[2:]))
        last = decode_receipt(await receipt_of(client)).receipt
        before = decode_receipt(await receipt_of(client, attempt=1)).receipt
    assert (before.attempt, before.sums, before.round) == (1, (), 1)
    assert last.attempt > 1
    assert last.sums


def receipts_of(scene: Scene) -> tuple[SignedReceipt, bytes]:
    """Return the one receipt that counts, and the bytes of its public form."""
    (stored,) = scene.store.receipts()
    (full,), (public,) = files(scene.folder, FULL), files(scene.folder, PUBLIC)
    assert (digest(full.read_bytes()), digest(public.read_bytes())) == (stored.full, stored.public)
    return decode_receipt(full.read_bytes()), public.read_bytes()


class Honest(Scene):
    """Participants that remember what they were shown and what they sent."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.sessions: dict[str, Session] = {}
        self.digests: dict[str, bytes] = {}
        self.seals: defaultdict[bytes, set[Seal]] = defaultdict(set)
        super().__init__(folder, make_settings(plan))
        self.machines |= {
            name: ParticipantRound(name, identity(name), POLICY, COORDINATOR_KEY.public, rng_of(name), serving=OsRng())
            for name in NAMES
        }

    def _carry_out(self, name, machine, effects):  # type: ignore[no-untyped-def]
        for effect in effects:
            message = getattr(effect, "message", None)
            if isinstance(message, Attached):
                self.digests[name] = message.contribution
        if name in NAMES and machine._announce is not None:
            self.sessions[name] = machine._announce.session
        super()._carry_out(name, machine, effects)

    def finish(self, steps: list[tuple[int, str]]) -> None:
        """Run to the end; note what the log says about sums at every step."""
        self.begin()
        todo = list(steps)
        while not self.is_over:
            self.step(*(todo.pop(0) if todo else (4, "no")))
            for row in self.store.log():
                if row.kind is RowKind.SEAL:
                    seal = msgspec.msgpack.decode(row.frame, type=Seal)
                    self.seals[seal.sid].add(seal)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
@pytest.mark.parametrize("protocol", PLANS)
def test_any_kills_leave_one_receipt_that_holds(protocol: str, steps: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Honest(Path(folder), PLANS[protocol])
        scene.finish(steps)
        scene.start()  # and once more: nothing is lost, nothing is made again
        full, public = receipts_of(scene)
        assert audit(public, COORDINATOR_KEY.public)
        assert full.receipt == decode_receipt(public).receipt
        assert full.receipt.model == digest(bytes(scene.conductor.model_bytes)).hex()
        (one,) = full.receipt.sums
        sid = bytes.fromhex(one.sid)
        # Whatever was killed, at most one commitment to a sum was ever stored.
        (seal,) = scene.seals[sid]
        assert seal.commitment.hex() == one.sum
        opening = scene.store.opening(sid)
        assert opening is not None
        assert opening.salt == seal.salt
        for name in NAMES:
            proof = proof_for(opening, name)
            assert proof is not None
            check_inclusion(full.receipt, scene.sessions[name], name, scene.digests[name], proof)
        assert proof_for(opening, "p9") is None


@pytest.mark.parametrize("protocol", PLANS)
def test_the_commitment_is_to_the_very_sum(protocol: str, tmp_path: Path) -> None:
    """Computed from the encoded updates alone, whatever hid them on the way."""
    plan = PLANS[protocol]
    scene = Honest(tmp_path, plan)
    scene.finish([])
    pipeline = Pipeline(plan, PARAMETERS)
    total = np.zeros(pipeline.length, container(plan.bits))
    for name in NAMES:
        update, examples = update_of(name)
        total += pipeline.encode(update, examples, {"loss": 1.0}, SeededDice(rng_of(name)))
    (one,) = receipts_of(scene)[0].receipt.sums
    opening = scene.store.opening(bytes.fromhex(one.sid))
    assert opening is not None
    check_sum(one, total, plan.bits, opening.salt)


def test_each_sum_has_a_salt_of_its_own_and_shows_it_nowhere(tmp_path: Path) -> None:
    plan = make_plan(minimum=2, protocol=Pairwise(corrupt=0.0, shard_size=2), i_know=(Risk.SMALL_COHORT,))
    scene = Honest(tmp_path, plan)
    scene.finish([])
    seals = [seal for found in scene.seals.values() for seal in found]
    assert len({seal.salt for seal in seals}) == 2
    (full,), (public,) = files(tmp_path, FULL), files(tmp_path, PUBLIC)
    for seal in seals:
        opening = scene.store.opening(seal.sid)
        assert seal.salt.hex() not in repr(seal) + repr(opening)
        for data in (full.read_bytes(), public.read_bytes()):
            assert seal.salt.hex().encode() not in data
            assert msgspec.json.encode(seal.salt).strip(b'"') not in data


def test_an_attempt_whose_log_lacks_a_commitment_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As one that an earlier version has logged."""
    scene = Honest(tmp_path, PLANS["ideal"])
    scene.begin()
    while not any(row.kind is RowKind.SEAL for row in scene.store.log()):
        scene.step(4, "no")
    rows = [row for row in scene.store.log() if row.kind is not RowKind.SEAL]
    scene.store._log[:] = [dataclasses.replace(row, seq=seq) for seq, row in enumerate(rows)]
    scene.mail = defaultdict(list)
    scene.start()
    assert scene.conductor.attempt is None
    assert "nobody committed to it" in caplog.text


def test_a_receipt_that_is_too_long_with_names_is_kept_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ridotto.coordinator.receipts.LARGEST_RECEIPT", 2000)
    scene = Honest(tmp_path, PLANS["ideal"])
    scene.finish([])
    full, public = receipts_of(scene)
    assert full == decode_receipt(public)
    assert full.record is None
    assert "it is kept without" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_nobody_else_may_read_receipts(tmp_path: Path) -> None:
    scene = Honest(tmp_path, PLANS["ideal"])
    scene.finish([])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / RECEIPTS).iterdir()} == {0o600}
