"""A federation in a folder or in memory, and participants that speak HTTP to its app without a port."""

from __future__ import annotations

import asyncio
import functools
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import msgspec
import numpy as np

from ridotto.coordinator.app import make_app
from ridotto.coordinator.auth import issue_tokens
from ridotto.coordinator.blobs import Blobs
from ridotto.coordinator.federation import Federation
from ridotto.coordinator.settings import FederationSettings
from ridotto.coordinator.store import MemoryStore, Store
from ridotto.core.fixedpoint import container
from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Send
from ridotto.core.rng import OsRng, SecretRng, insecure_seeded_rng
from ridotto.core.tensors import write_model
from ridotto.core.vector import Layout
from ridotto.core.wire import Codec, digest
from ridotto.crypto.identity import sign_request
from ridotto.crypto.seal import IdentityKey
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.messages import Train, Trained, messages_of_all
from ridotto.rounds.noise import add_committee_noise
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Pairwise, Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.round import ParticipantRound
from ridotto.rounds.service import INBOX_PATH, MESSAGES_PATH, PARTICIPANTS_PATH, Enrolment, Inbox, RunState
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.tasks import SumMasks
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate

PARAMETERS = 5
MODEL = np.arange(PARAMETERS, dtype=np.float32)
LAYOUT = Layout.of({"weights": MODEL})
CODEC = Codec(*messages_of_all(), attachment_limit=1 << 20)
COORDINATOR_KEY = IdentityKey.generate(insecure_seeded_rng(1))


@cache
def identity(name: str) -> IdentityKey:
    return IdentityKey.generate(insecure_seeded_rng(zlib.crc32(name.encode())))


def make_plan(cohort: int = 4, **changes: object) -> Plan:
    settings: dict[str, object] = {
        "cohort": cohort,
        "minimum": 3,
        "protocol": Pairwise(corrupt=0.0),
        "metrics": {"loss": 10.0},
        "join_s": 0.05,
        "train_s": 5.0,
        "phase_s": 5.0,
    }
    return Plan(**(settings | changes))  # type: ignore[arg-type]


def make_settings(plan: Plan | None = None, rounds: int = 1, **changes: object) -> FederationSettings:
    allowed = {f"p{i}": identity(f"p{i}").public.hex() for i in range(10)}
    chosen: dict[str, object] = {"name": "test", "plan": plan or make_plan(), "rounds": rounds, "allowed": allowed}
    return FederationSettings(**(chosen | changes))  # type: ignore[arg-type]


def make_federation(
    folder: Path, settings: FederationSettings | None = None, store: Store | None = None, **changes: object
) -> Federation:
    return Federation(
        settings or make_settings(),
        LAYOUT,
        MODEL,
        COORDINATOR_KEY,
        MemoryStore() if store is None else store,
        Blobs(folder),
        **changes,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def opened(federation: Federation) -> AsyncIterator[httpx.AsyncClient]:
    """Open a federation and give a client of its app."""
    await federation.open()
    transport = httpx.ASGITransport(make_app(federation))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        try:
            yield client
        finally:
            await federation.close()


def authorization(name: str, method: str, target: str, signed: bytes, at: float | None = None) -> dict[str, str]:
    now = int(time.time() if at is None else at)
    return {"Authorization": sign_request(identity(name), method, target, now, digest(signed))}


def update_of(name: str) -> tuple[np.ndarray, int]:
    """Return the update and the number of examples of a participant."""
    index = int(name[1:])
    return np.full(PARAMETERS, (index + 1) / 8, np.float32), 10 * (index + 1)


def rng_of(name: str) -> SecretRng:
    """Return what a participant draws from, the same in every attempt: so its rounding can be repeated here."""
    return insecure_seeded_rng(0).child(name)


def ideal_model(plan: Plan, names: Iterable[str], rounds: int = 1) -> bytes:
    """Compute the model file after so many rounds from the encoded updates alone: no masks, no coordinator."""
    pipeline = Pipeline(plan, PARAMETERS)
    strategy = plan.optimiser.build()
    model, state = MODEL, strategy.init(MODEL)
    for _ in range(rounds):
        total = np.zeros(pipeline.length, container(plan.bits))
        for name in names:
            update, examples = update_of(name)
            total += pipeline.encode(update, examples, {"loss": 1.0}, SeededDice(rng_of(name)))
        state, model = strategy.apply(state, model, pipeline.decode(total).mean)
    return write_model(model, LAYOUT)


@dataclass
class Mini:
    """A participant that runs the real machine over HTTP, and tries again what was not acknowledged.

    dies_before: name of a message class it never sends: it stops instead. serves: as a helper, which trains nothing.
    """

    name: str
    client: httpx.AsyncClient
    dies_before: str = ""
    serves: bool = False
    wait_s: float = 2.0
    poll_pause_s: float = 0.01
    policy: Policy = field(default_factory=lambda: Policy(min_corrupt=0.0))
    coordinator: bytes = COORDINATOR_KEY.public
    state: RunState = RunState.WAITING
    closed: list[str] = field(default_factory=list)

    async def enrol(self, token: str = "") -> httpx.Response:
        body = msgspec.json.encode(Enrolment(name=self.name, key=identity(self.name).public.hex(), token=token))
        headers = authorization(self.name, "POST", PARTICIPANTS_PATH, body)
        return await self.client.post(PARTICIPANTS_PATH, content=body, headers=headers)

    async def inbox(self, attempt: int, after: int, wait_s: float | None = None) -> httpx.Response:
        target = f"{INBOX_PATH}?attempt={attempt}&after={after}&wait={self.wait_s if wait_s is None else wait_s}"
        return await self.client.get(target, headers=authorization(self.name, "GET", target, b""))

    async def post(self, attempt: int, frame: bytes, header: bytes) -> httpx.Response:
        target = f"{MESSAGES_PATH}?attempt={attempt}"
        return await self.client.post(target, content=frame, headers=authorization(self.name, "POST", target, header))

    async def run(self) -> None:
        """Take part until the federation is done or failed, this participant is refused, or it dies."""
        await self._again(self.enrol)
        attempt = after = 0
        machine: ParticipantRound | HelperRound | None = None
        while True:
            response = await self._again(functools.partial(self.inbox, attempt, after))
            if response.status_code != 200:
                return
            inbox = msgspec.msgpack.decode(response.content, type=Inbox)
            self.state = inbox.state
            if inbox.attempt != attempt or machine is None:
                attempt, after = inbox.attempt, 0
                machine = self._machine()
            for frame in inbox.frames:
                after += 1
                message, _ = CODEC.decode(frame, COORDINATOR)
                if not await self._carry_out(attempt, machine, machine.receive(COORDINATOR, message, 0.0)):
                    return
            if not inbox.frames and inbox.state in (RunState.DONE, RunState.FAILED):
                return

    def _machine(self) -> ParticipantRound | HelperRound:
        me = self.name, identity(self.name), self.policy, self.coordinator
        return HelperRound(*me, OsRng()) if self.serves else ParticipantRound(*me, rng_of(self.name), serving=OsRng())

    async def _carry_out(self, attempt: int, machine: ParticipantRound | HelperRound, effects: list[Effect]) -> bool:
        for effect in effects:
            match effect:
                case Do(Train()):
                    update, examples = update_of(self.name)
                    trained = Trained(update.copy(), examples, {"loss": 1.0})
                    if not await self._carry_out(attempt, machine, machine.receive(SELF, trained, 0.0)):
                        return False
                case Do(Encapsulate() as task):
                    if not await self._carry_out(attempt, machine, machine.receive(SELF, encapsulate_all(task), 0.0)):
                        return False
                case Do(SumMasks() as task):
                    summed = sum_masks(task, add_committee_noise)
                    if not await self._carry_out(attempt, machine, machine.receive(SELF, summed, 0.0)):
                        return False
                case Send(_, message, attachment):
                    if type(message).__name__ == self.dies_before:
                        return False
                    frame, header = CODEC.encode(message, attachment), CODEC.header(message)
                    response = await self._again(functools.partial(self.post, attempt, frame, header))
                    if response.status_code not in (204, 409, 410):
                        return False
                case Finish(result):
                    self.closed.append(getattr(result, "reason", "gone"))
        return True

    async def _again(self, ask) -> httpx.Response:  # type: ignore[no-untyped-def]
        """Ask until there is an answer that is not 5xx, as a participant does."""
        while True:
            try:
                response = await ask()
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code < 500:
                return response
            await asyncio.sleep(self.poll_pause_s)


def tokens(store: Store, count: int = 1) -> list[str]:
    return issue_tokens(store, count, OsRng())
