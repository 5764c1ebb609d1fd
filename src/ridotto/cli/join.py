"""`ridotto join`: take part in a federation with a program's trainer and data."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridotto.cli.options import (
    Ca,
    Certificate,
    CertificateKey,
    Debug,
    Json,
    ProgramOptions,
    State,
    Url,
    certificate_pair,
    program_options,
)

if TYPE_CHECKING:
    from ridotto.participant.events import Event, Fault, Spent, Summary
    from ridotto.participant.loop import Participation
    from ridotto.tasks import Task


def join(
    url: Url,
    program: Annotated[
        str, typer.Option(metavar="NAME", help='"digits", "file.py:function" or "package.module:function".')
    ] = "digits",
    option: ProgramOptions = None,
    client: Annotated[
        int | None, typer.Option(metavar="N", help="Which of the program's data sets is yours, from 0.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Your name in the federation; made from your key without it.")
    ] = None,
    state: State = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What you allow, whatever the coordinator plans.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="One-time token for the first enrolment; better in RIDOTTO_TOKEN.")
    ] = None,
    coordinator: Annotated[
        str | None, typer.Option(metavar="KEY", help="The coordinator's identity key, if you know it beforehand.")
    ] = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: CertificateKey = None,
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to try again when the coordinator can't be reached.")
    ] = 300.0,
    receipts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Check every round's receipt and keep it here, with a proof.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the final model here, safetensors.")] = None,
    committee: Annotated[
        bool, typer.Option("--committee", help="Serve on committees as one of the plan's helpers; train nothing.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
    pause: Annotated[str | None, typer.Option(hidden=True, help="ROUND:MESSAGE:SECONDS, for demonstrations.")] = None,
) -> None:
    """Take part in a federation until its rounds are over. Only masked updates leave this machine.

    The process may be stopped at any moment: started again with the same name and state, it goes on where it was.
    With --committee it needs no program and no data: it helps to open the sums of others, and sees none of them.
    """
    from ridotto.config import enrolment_token, state_directory
    from ridotto.participant.enter import Params
    from ridotto.participant.policy import load_policy
    from ridotto.rounds.policy import Policy
    from ridotto.tasks import load_task
    from ridotto.trust.keep import Receipts

    params = Params(
        url=url,
        name=name,
        state=state or state_directory(),
        policy=load_policy(policy) if policy else Policy(),
        token=enrolment_token() if token is None else token,
        coordinator=coordinator,
        patience_s=patience,
        ca=ca,
        certificate=certificate_pair(certificate, key),
        receipts=None if receipts is None else Receipts(receipts),
    )
    if committee:
        from ridotto.cli.committee import join_committee

        join_committee(params, json=json)
        return
    task = load_task(program, program_options(option))
    summary = _take_part(params, task, task.data_of(client), _fault(pause), json=json)
    if save is not None:
        _save(summary, task, save)


def _take_part(params: Any, task: Task, data: Any, fault: Fault | None, *, json: bool) -> Summary:
    from ridotto.cli.screen import machine
    from ridotto.participant.enter import enter
    from ridotto.participant.join import run

    shown: list[Participation] = []  # events come only after it was entered; the list ties the knot

    def tell(event: Event) -> None:
        traffic = shown[0].traffic if shown else None
        sent, received = (traffic.sent_bytes, traffic.received_bytes) if traffic else (0, 0)
        facts = {"round": event.round, "attempt": event.attempt, "message": event.message, "reason": event.reason}
        machine(event.kind, **facts, sent_bytes=sent, received_bytes=received, **_spent(event.spent))

    with enter(params, task.trainer.layout, on_event=tell if json else _person(), fault=fault) as participation:
        shown.append(participation)
        if not json:
            _greet(participation)
        summary = run(participation, task.trainer, data)
    _sum_up(summary, json=json)
    return summary


def _person() -> Callable[[Event], None]:
    from ridotto.cli.screen import line, person
    from ridotto.participant.events import EventKind

    console = person()
    sentences = {
        EventKind.WAITING: "waiting for a round",
        EventKind.TRAINING: "round {event.round}: training",
        EventKind.CLOSED: "round {event.round}: closed",
        EventKind.LOST: "round {event.round}: went on without us",
        EventKind.RECEIPT: "round {event.round}: receipt checked",
        EventKind.DONE: "all rounds are over",
    }

    def tell(event: Event) -> None:
        if event.kind in sentences:
            reason = f" ({event.reason})" if event.reason else ""
            line(console, sentences[event.kind].format(event=event) + reason)
        if event.kind == EventKind.CLOSED and event.spent is not None:
            line(console, f"round {event.round}: {event.spent} is spent by our own count")

    return tell


def _spent(spent: Spent | None) -> dict[str, object]:
    """Return our own count as data; JSON has no infinity."""
    if spent is None:
        return {}
    own = {"epsilon": spent.epsilon if math.isfinite(spent.epsilon) else None, "delta": spent.delta}
    return {"spent": {**own, "limit": spent.limit, "rounds": spent.rounds, "relation": spent.relation}}


def _greet(participation: Participation) -> None:
    from ridotto.cli.screen import line, person

    line(person(), f"taking part as {participation.name}")


def _sum_up(summary: Summary, *, json: bool) -> None:
    from ridotto.cli.screen import machine, pairs, person, size
    from ridotto.participant.events import EventKind

    taken = [report.round for report in summary.rounds if report.outcome == EventKind.CLOSED and not report.reason]
    digest = summary.model_digest.hex()
    if json:
        traffic = {"sent_bytes": summary.sent_bytes, "received_bytes": summary.received_bytes}
        machine("summary", name=summary.name, rounds=taken, model=digest, **traffic, **_spent(summary.spent))
        return
    facts = {
        "took part in": f"{len(taken)} rounds",
        "sent": size(summary.sent_bytes),
        "received": size(summary.received_bytes),
        **({} if summary.spent is None else {"spent": f"{summary.spent}, by our own count"}),
        "final model": f"{digest[:16]}  (SHA-256)",
    }
    person().print(pairs("", facts))


def _save(summary: Summary, task: Task, path: Path) -> None:
    from ridotto.core.tensors import write_model
    from ridotto.errors import StorageError

    try:
        path.write_bytes(write_model(summary.model, task.trainer.layout))
    except OSError as error:
        raise StorageError(f"the model can't be saved as {path}: {error.strerror or error}") from error


def _fault(pause: str | None) -> Fault | None:
    from ridotto.errors import ConfigError
    from ridotto.participant.events import Fault

    if pause is None:
        return None
    try:
        number, message, seconds = pause.split(":")
        return Fault(int(number), message, float(seconds))
    except ValueError as error:
        raise ConfigError(f"--pause is ROUND:MESSAGE:SECONDS, as 3:Masked:600, not {pause}") from error
