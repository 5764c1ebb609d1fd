"""`ridotto join --committee`: serve on a federation's committees, and show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ridotto.participant.enter import Params
    from ridotto.participant.events import Event
    from ridotto.participant.help import Served


def join_committee(params: Params, *, json: bool) -> None:
    """Serve until all rounds are over, and sum up."""
    from ridotto.participant.help import serve_committee

    _sum_up(serve_committee(params, on_event=_machine() if json else _person()), json=json)


def _machine() -> Callable[[Event], None]:
    from ridotto.cli.screen import machine

    def tell(event: Event) -> None:
        facts = {"round": event.round, "attempt": event.attempt, "message": event.message, "reason": event.reason}
        machine(event.kind, **facts, size_bytes=event.size_bytes)

    return tell


def _person() -> Callable[[Event], None]:
    from ridotto.cli.screen import line, person, printable, size
    from ridotto.participant.events import EventKind

    console = person()
    sentences = {
        EventKind.WAITING: "ready to serve, waiting for a round",
        EventKind.CLOSED: "round {event.round}: served, and closed",
        EventKind.LOST: "round {event.round}: went on without us",
        EventKind.DONE: "all rounds are over",
    }

    def tell(event: Event) -> None:
        if event.kind in sentences:
            reason = f" ({printable(event.reason)})" if event.reason else ""
            line(console, sentences[event.kind].format(event=event) + reason)
        elif event.message == "Decline":
            line(console, f"round {event.round}: declined ({printable(event.reason)})")
        elif event.message in ("MaskSum", "Release"):
            line(console, f"round {event.round}: releasing {size(event.size_bytes)} for a sum that all agreed on")

    return tell


def _sum_up(served: Served, *, json: bool) -> None:
    from ridotto.cli.screen import machine, pairs, person, size

    traffic = {"sent_bytes": served.sent_bytes, "received_bytes": served.received_bytes}
    if json:
        machine("summary", name=served.name, rounds=list(served.rounds), **traffic)
        return
    facts = {
        "served as": served.name,
        "in": f"{len(served.rounds)} rounds",
        **{name.removesuffix("_bytes"): size(count) for name, count in traffic.items()},
    }
    person().print(pairs("", facts))
