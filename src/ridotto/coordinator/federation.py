"""Run a federation: one writer that takes what comes in, batch by batch, and starts rounds when enough are there.

Everything here runs in one event loop, except the steps themselves (`conductor`), which run in a thread one after the
other. A step's results become visible here, after it was committed: answers, inboxes, events.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ridotto.coordinator.blobs import Blobs, model_name
from ridotto.coordinator.closed import ClosedRounds
from ridotto.coordinator.conductor import Conductor, Input, Outcome
from ridotto.coordinator.logbook import log_committee, log_opening, log_record
from ridotto.coordinator.presence import Mailboxes, Presence
from ridotto.coordinator.progress import Run
from ridotto.coordinator.refusals import RefusalError, RefusalKind
from ridotto.coordinator.roster import Roster
from ridotto.coordinator.settings import FederationSettings
from ridotto.coordinator.store import Store
from ridotto.coordinator.vectors import VectorForm
from ridotto.coordinator.watchers import Event, EventKind, Watchers, heard, make_event
from ridotto.core.rng import OsRng, Rng
from ridotto.core.vector import Layout, Vector
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import StorageError
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.service import LONGEST_WAIT_S, Enrolment, FederationInfo, Inbox, RunState
from ridotto.secagg.session import Progress

RETRY_S = 1.0
"""Between two tries of a step that nobody asked for, when storing fails: a full disk is emptied by people."""

INBOX_BYTES = 16 << 20
"""Frames in one answer at most, beyond the first: the rest is asked for next."""

_log = logging.getLogger(__name__)
_DICE = secrets.SystemRandom()

_Step = Callable[[float], Outcome]


@dataclass(slots=True)
class _Waiting:
    """A message that is not yet durable, and who waits for it to be."""

    item: Input
    done: asyncio.Future[None]


class Federation:
    """Run one federation from its store and blobs.

    layout, model: what training starts from, if the store is empty. identity: signs announcements and records.
    clock: unix seconds. rng: for nonces; the operating system's by default. `settings` has the plan with its noise.
    Call `open` once, in the loop that serves, and `close` at the end. Raises as `Conductor` does.
    """

    def __init__(
        self,
        settings: FederationSettings,
        layout: Layout,
        model: Vector,
        identity: IdentityKey,
        store: Store,
        blobs: Blobs,
        *,
        clock: Callable[[], float] = time.time,
        rng: Rng | None = None,
    ) -> None:
        self._conductor = Conductor(settings, layout, model, identity, store, blobs, rng or OsRng())
        self.settings = settings = self._conductor.settings
        self.identity = identity
        self.clock = clock
        self.parameters = layout.length
        self._vectors = VectorForm.of(settings.plan, layout)
        self.vector_bytes = self._vectors.size_bytes
        self._store = store
        self._blobs = blobs
        self.closed = ClosedRounds(store, blobs)
        self.roster = Roster(store, settings.allowed, settings.helpers)
        self._presence = Presence(settings.presence_s)
        self._mailboxes = Mailboxes()
        self._watchers = Watchers()
        self._queue: deque[_Waiting] = deque()
        self._news = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self._stale: _Step | None = None
        self._pause_until = 0.0
        self._joined_since: float | None = None

    async def open(self) -> None:
        """Load what is stored and begin to write.

        Raises StorageError if something stored is damaged, DataError if it is of another model.
        """
        outcome = await asyncio.to_thread(self._conductor.load, self.clock())
        await self.roster.load()
        self._look()
        self._mailboxes.deliver(outcome.sent)
        log_opening(self.settings, self._run, self._statement)
        self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Finish the step under way and let go of everything; what waits is refused, and can be sent again."""
        self._closing = True
        self._news.set()
        self._mailboxes.wake_all()
        self._watchers.close()
        if self._writer is not None:
            await self._writer
        _refuse_all(self._take_queue(len(self._queue)), _closing())
        await asyncio.to_thread(self._store.close)

    @property
    def is_alive(self) -> bool:
        """Return whether messages can be taken: the writer runs, and its last step was stored."""
        return self._writer is not None and not self._writer.done() and self._stale is None and not self._closing

    def info(self) -> FederationInfo:
        """Tell what is trained and how far it is."""
        run, plan, (present, helpers) = self._run, self._plan, self._present()
        return FederationInfo(
            name=self.settings.name,
            coordinator=self.identity.public.hex(),
            plan=plan,
            protection=plan.protection(),
            state=run.state,
            reason=run.reason,
            round=run.round,
            rounds=self.settings.rounds,
            attempt=run.attempt,
            model=run.model.hex(),
            parameters=self.parameters,
            participants=len(self.roster),
            present=len(present),
            helpers_present=len(helpers),
            privacy=self._statement,
            epsilon_left=None if self._statement is None else self._statement.left,
        )

    async def enrol(self, enrolment: Enrolment, signer: bytes) -> bool:
        """Enrol a participant, see `Roster.enrol`."""
        return await self.roster.enrol(enrolment, signer, self.clock())

    def admit(self, name: str) -> None:
        """Refuse a participant that was excluded, with the reason for it."""
        reason = self._run.excluded.get(name)
        if reason is not None:
            raise RefusalError(RefusalKind.EXCLUDED, f"{name} takes part no more: {reason}")

    async def submit(self, item: Input) -> None:
        """Hand in one message; returns once it is durable.

        Raises PeerProtocolError or RefusalError if it is refused, StorageError if it could not be stored.
        """
        if item.attachment is not None:
            await asyncio.to_thread(self._vectors.check, item.sender, item.attachment)
        self.admit(item.sender)
        if self._closing:
            raise _closing()
        waiting = _Waiting(item, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._news.set()
        await waiting.done

    async def inbox(self, name: str, attempt: int, after: int, wait_s: float) -> Inbox:
        """Return frames for `name`; waits up to `wait_s` for one, see `rounds.service.Inbox`."""
        end = time.monotonic() + min(max(wait_s, 0.0), LONGEST_WAIT_S)
        poll = object()
        # One poll per participant waits: thousands of them would take everybody's connections.
        self._presence.begin(name, poll)
        self._mailboxes.wake(name)
        self._arrive(name, poll)
        try:
            while True:
                self.admit(name)
                answer, news = self._answer(name, attempt, after)
                rest_s = end - time.monotonic()
                if news or rest_s <= 0 or self._closing or not self._presence.is_newest(name, poll):
                    return answer
                # Presence was forgotten if an attempt has ended meanwhile; who goes on waiting is still there.
                self._arrive(name, poll)
                await self._mailboxes.changed(name, rest_s)
        finally:
            self._presence.leave(poll)

    def _arrive(self, name: str, poll: object) -> None:
        self._presence.arrive(name, poll, self.clock())
        if self._run.state is RunState.WAITING:
            self._news.set()

    def model_file(self, sha256: bytes) -> bytes | Path | None:
        """Return a published model: the newest one's bytes, an older one's file, None if there is none."""
        if sha256 == self._run.model:
            return self._model_bytes
        path = self._blobs.path(model_name(sha256))
        return path if path.is_file() else None

    def deltas(self, held: bytes, wanted: bytes) -> tuple[Path, ...]:
        """Return the files that lead from one model to another, see `Deltas.between`."""
        return self._conductor.deltas.between(held, wanted)

    def admit_watcher(self) -> None:
        """Refuse one more who wants to watch, if there are many."""
        if self._watchers.are_many:
            raise RefusalError(RefusalKind.TOO_MANY, "as many watch as there is room for; try again later")

    async def events(self, heartbeat_s: float) -> AsyncIterator[Event | None]:
        """Yield what happens, beginning with the state; None is a heartbeat."""
        with self._watchers.watch() as queue:
            yield make_event(EventKind.STATE, self.info())
            if not self._closing:
                async for event in heard(queue, heartbeat_s):
                    yield event

    def _answer(self, name: str, attempt: int, after: int) -> tuple[Inbox, bool]:
        """Return the inbox as it is now, and whether it tells anything new."""
        run = self._run
        if attempt != run.attempt:
            after = 0
        frames: list[bytes] = []
        size = 0
        for frame in self._mailboxes.frames(name, after):
            if frames and size + len(frame) > INBOX_BYTES:
                break
            frames.append(frame)
            size += len(frame)
        answer = Inbox(attempt=run.attempt, state=run.state, reason=run.reason, after=after, frames=tuple(frames))
        # Who asks for attempt 0 has seen none yet, and has nothing to learn from hearing that there are others.
        moved_on = attempt not in (0, run.attempt)
        return answer, bool(frames) or moved_on or run.state in (RunState.DONE, RunState.FAILED)

    async def _write(self) -> None:
        """Take one step after another, for as long as the federation is open."""
        while not self._closing:
            self._news.clear()
            step, batch, pause_s = self._choose(self.clock())
            if step is not None:
                await self._take_step(step, batch)
                continue
            try:
                await asyncio.wait_for(self._news.wait(), pause_s)
            except TimeoutError:
                continue

    def _choose(self, now: float) -> tuple[_Step | None, list[_Waiting], float | None]:
        """Return what to do next, the messages it is about, and if there is nothing, how long that will stay so."""
        if self._queue and self._stale is None:
            return self._next_batch()
        if now < self._pause_until and not self._queue:
            return None, [], self._pause_until - now
        if self._stale is not None:
            return self._stale, [], None
        attempt = self._conductor.attempt
        if attempt is None or attempt.record is not None:
            return self._choose_members(now)
        if attempt.pending:
            return self._conductor.perform, [], None
        wake = self._conductor.wake_at()
        if wake is not None and now >= wake:
            return self._conductor.expire, [], None
        return None, [], None if wake is None else wake - now

    def _next_batch(self) -> tuple[_Step | None, list[_Waiting], float | None]:
        """Take messages of the current attempt from the queue, and refuse those of others."""
        batch = []
        for waiting in self._take_queue(self.settings.batch):
            if waiting.item.attempt == self._run.attempt and self._conductor.attempt is not None:
                batch.append(waiting)
            else:
                over = RefusalError(RefusalKind.ATTEMPT_OVER, f"attempt {waiting.item.attempt} is over")
                _refuse_all([waiting], over)
        items = [waiting.item for waiting in batch]
        return functools.partial(self._conductor.take, items) if batch else None, batch, 0.0

    def _choose_members(self, now: float) -> tuple[_Step | None, list[_Waiting], float | None]:
        """Start an attempt if the cohort is there, or if the minimum has waited long enough for the rest."""
        plan, (present, helpers) = self.settings.plan, self._present()
        count = plan.cohort_of(len(present)) if self._run.state is RunState.WAITING else 0
        if not count or not plan.served_by(len(helpers)):
            self._joined_since = None
            return None, [], self.settings.presence_s
        self._joined_since = now if self._joined_since is None else self._joined_since
        rest_s = self._joined_since + plan.join_s - now
        if (count < plan.cohort or len(helpers) < plan.most_helpers) and rest_s > 0:
            return None, [], rest_s
        chosen = sorted(present if count == len(present) else _DICE.sample(sorted(present), count))
        members, serving = self.roster.members(chosen), self.roster.members(sorted(helpers))
        return functools.partial(self._conductor.begin, members, serving), [], None

    def _present(self) -> tuple[set[str], set[str]]:
        """Return which participants are there, and which helpers."""
        present, helpers = self.roster.split(self._presence.present(self.clock()))
        return present - self._run.excluded.keys(), helpers

    async def _take_step(self, step: _Step, batch: Sequence[_Waiting]) -> None:
        """Carry out one step in a thread, and show what it led to."""
        loading = step is self._stale
        try:
            outcome = await asyncio.to_thread(step, self.clock())
        except Exception as error:
            await self._recover(error, batch, loading)
            return
        self._stale = None
        begun = self._conductor.run.attempt != self._run.attempt
        self._look()
        if loading or begun:
            self._mailboxes.clear()
            self._joined_since = None
        self._show(outcome, state_changed=loading or begun)
        for place, waiting in enumerate(batch):
            _resolve(waiting.done, outcome.refused.get(place))

    def _look(self) -> None:
        """Take note of how far the conductor is. Only between its steps do its parts fit together."""
        self._run: Run = self._conductor.run
        self._model_bytes = self._conductor.model_bytes
        self._statement, self._plan = self._conductor.statement, self._conductor.plan

    def _show(self, outcome: Outcome, state_changed: bool) -> None:
        self._mailboxes.deliver(outcome.sent)
        for published in outcome.published:
            if isinstance(published, SignedRecord):
                self._watchers.show(make_event(EventKind.RECORD, published))
                log_record(published.record, self._run)
            elif isinstance(published, Progress):
                self._watchers.show(make_event(EventKind.PROGRESS, published))
            else:
                log_committee(published)
        if outcome.ended:
            self._presence.forget()
        if outcome.ended or state_changed:
            self._watchers.show(make_event(EventKind.STATE, self.info()))
            self._mailboxes.wake_all()

    async def _recover(self, error: Exception, batch: Sequence[_Waiting], loading: bool) -> None:
        """Deal with a step that failed: what is in memory is ahead of what is stored, so it is loaded again.

        If it was a bug that one message sets off, the others of its batch must not suffer: each is tried alone.
        """
        if isinstance(error, StorageError):
            # The attempt's clock stands still until the disk is back, as if the coordinator had been down.
            self._stale = self._conductor.load
            _log.error("a step could not be stored: %s", error)
        else:
            self._stale = self._conductor.reload
            _log.exception("a step failed; it is taken back", exc_info=error)
        if loading:
            batch = self._take_queue(len(self._queue))
        if loading or not batch:
            self._pause_until = self.clock() + RETRY_S
        if isinstance(error, StorageError) or loading or len(batch) <= 1:
            _refuse_all(batch, error)
            return
        for waiting in batch:
            if await self._bring_back():
                await self._take_step(functools.partial(self._conductor.take, [waiting.item]), [waiting])
            else:
                _refuse_all([waiting], error)

    async def _bring_back(self) -> bool:
        """Load what is stored if that is needed; return whether it worked."""
        if self._stale is not None:
            await self._take_step(self._stale, [])
        return self._stale is None

    def _take_queue(self, count: int) -> list[_Waiting]:
        return [self._queue.popleft() for _ in range(min(count, len(self._queue)))]


def _refuse_all(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        _resolve(waiting.done, error)


def _resolve(done: asyncio.Future[None], error: Exception | None) -> None:
    """Answer whoever waits; it may have gone away by now."""
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _closing() -> RefusalError:
    return RefusalError(RefusalKind.SHUTTING_DOWN, "send it again when the coordinator is back")
