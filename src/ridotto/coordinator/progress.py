"""How far a federation is, and what the end of an attempt or a restart makes of that. Pure: a `Run` in, a `Run` out."""

from __future__ import annotations

import msgspec

from ridotto.core.wire import sentence
from ridotto.rounds.record import RoundRecord
from ridotto.rounds.service import RunState


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep how far a federation is.

    round: the current or next one; the last one that succeeded when it is done. attempt: the last one, 0 before the
    first. failures: in a row. reason: why it failed, or is done before its last round. model, strategy: SHA-256 of the
    newest model and of its strategy's state. excluded: name -> why.
    """

    round: int
    attempt: int
    failures: int
    state: RunState
    reason: str
    model: bytes
    strategy: bytes
    excluded: dict[str, str]


def new_run(model: bytes, strategy: bytes) -> Run:
    """Return a federation before its first round."""
    return Run(
        round=1,
        attempt=0,
        failures=0,
        state=RunState.WAITING,
        reason="",
        model=model,
        strategy=strategy,
        excluded={},
    )


def begun(run: Run, attempt: int) -> Run:
    """Return the federation in this attempt."""
    return msgspec.structs.replace(run, attempt=attempt, state=RunState.RUNNING, reason="")


def succeeded(run: Run, record: RoundRecord, strategy: bytes, rounds: int) -> Run:
    """Return the federation after an attempt that made a model. strategy: its state's digest. rounds: in all."""
    done = record.round >= rounds
    return msgspec.structs.replace(
        run,
        round=record.round if done else record.round + 1,
        failures=0,
        state=RunState.DONE if done else RunState.WAITING,
        model=bytes.fromhex(record.model),
        strategy=strategy,
    )


def failed(run: Run, record: RoundRecord, max_failures: int) -> Run:
    """Return the federation after an attempt that failed: it stops after so many in a row."""
    failures = run.failures + 1
    if failures < max_failures:
        return msgspec.structs.replace(run, failures=failures, state=RunState.WAITING)
    reason = sentence(f"{failures} attempts failed in a row, the last one because of: {record.failure}")
    return msgspec.structs.replace(run, failures=failures, state=RunState.FAILED, reason=reason)


def without_blamed(run: Run, record: RoundRecord) -> Run:
    """Return the federation without those who broke a session of this attempt."""
    excluded = dict(run.excluded)
    for session in record.sessions:
        for name in session.blamed:
            excluded[name] = f"blamed in attempt {record.attempt} at round {record.round}: {session.failure}"
    return msgspec.structs.replace(run, excluded=excluded)


def resumed(run: Run, rounds: int, *, is_open: bool) -> Run:
    """Fit what was stored to today's settings: an operator may have asked for more rounds, or for fewer.

    is_open: whether the attempt that was under way goes on.
    """
    if run.state is RunState.RUNNING and is_open:
        return run
    if run.state is RunState.DONE:
        more = run.round < rounds
        state = RunState.WAITING if more else RunState.DONE
        return msgspec.structs.replace(run, round=run.round + more, state=state, reason="")
    if run.round > rounds:
        return msgspec.structs.replace(run, round=run.round - 1, state=RunState.DONE, reason="")
    failures = 0 if run.state is RunState.FAILED else run.failures
    return msgspec.structs.replace(run, failures=failures, state=RunState.WAITING, reason="")


def stopped(run: Run, reason: str) -> Run:
    """Return a federation that waits for its next round as one that has none: done, or failed if none succeeded."""
    if run.round == 1:
        return msgspec.structs.replace(run, state=RunState.FAILED, reason=sentence(reason))
    return msgspec.structs.replace(run, round=run.round - 1, state=RunState.DONE, reason=sentence(reason))
