"""What a person sees of the demo: a live table on a terminal, lines elsewhere; for machines, the summary only."""

from __future__ import annotations

import time
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ridotto.cli.demo.play import Result
from ridotto.cli.demo.story import Person, Story
from ridotto.cli.screen import line, machine, pairs, person, size, table

BARS = "▁▂▃▄▅▆▇█"


class View(Protocol):
    """Show the demo. A context manager around the time in which it happens."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: Any) -> None: ...

    def update(self) -> None:
        """Show what is new."""

    def finish(self, result: Result) -> None:
        """Show what came of it."""


def view(story: Story, *, json: bool) -> View:
    """Return the view that fits standard output."""
    if json:
        return JsonView()
    console = person()
    return LiveView(story, console) if console.is_terminal else PlainView(story, console)


class JsonView:
    """Print the summary as one JSON line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def update(self) -> None:
        """Show nothing."""

    def finish(self, result: Result) -> None:
        """Print the summary."""
        machine("summary", **summary(result))


class PlainView:
    """Print a line for every round, and one when somebody is killed."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._console = console
        self._rounds = 0
        self._killed = 0
        self._step = ""

    def __enter__(self) -> Self:
        line(self._console, _title(self._story))
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def update(self) -> None:
        """Print what is new."""
        story = self._story
        if not story.records and story.step != self._step:
            self._step = story.step
            line(self._console, f"round {story.round}: {story.step}" if story.round else story.step)
        killed = [p.name for p in story.people.values() if p.killed]
        if len(killed) > self._killed:
            self._killed = len(killed)
            line(self._console, _kill_line(story))
        for record, accuracy in list(zip(story.records, story.accuracy, strict=True))[self._rounds :]:
            self._rounds += 1
            lost = f"  lost {', '.join(record.lost)}" if record.lost else ""
            head = f"round {record.round:>2}/{story.rounds}  {record.participants:>2} participants"
            line(self._console, f"{head}  accuracy {accuracy:.3f}{lost}")

    def finish(self, result: Result) -> None:
        """Print the tables."""
        self._console.print(*_tables(result), sep="\n")


class LiveView:
    """Draw the whole state again and again in one place."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._console = console
        self._started = time.monotonic()
        self._live = Live(self, console=console, refresh_per_second=10, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._live.transient = kind is None  # whoever stopped it, or sees it fail, sees how far it was
        self._live.stop()

    def __rich__(self) -> RenderableType:
        """Draw the state as it is now."""
        story = self._story
        seconds = f"{time.monotonic() - self._started:5.1f} s"
        head = Text.assemble((_title(story), "bold"), "  ", (seconds, "dim"))
        rows = [_row(p) for p in story.people.values()]
        people = table("", ("participant", "examples", "sent", "received", "now"), rows)
        people.columns[-1].justify = "left"
        return Group(head, _where(story), _accuracy(story), "", people, *_notes(story))

    def update(self) -> None:
        """Do nothing: the screen is drawn by the clock."""

    def finish(self, result: Result) -> None:
        """Print the tables."""
        self._console.print(_title(self._story), style="bold")
        self._console.print(_accuracy(self._story))
        for note in _notes(self._story):
            self._console.print(note)
        self._console.print(*_tables(result), sep="\n")


def summary(result: Result) -> dict[str, Any]:
    """Return what came of the demo as plain data; docs/command-line.md describes it."""
    story, verdict = result.story, result.verdict
    return {
        "ok": verdict.good,
        "accuracy": {"federated": verdict.federated, "pooled": verdict.pooled, "alone": verdict.alone},
        "rounds": len(story.records),
        "seconds": round(result.seconds, 1),
        "participants": {
            p.name: {
                "examples": p.examples,
                "sent_bytes": p.sent_bytes,
                "received_bytes": p.received_bytes,
                "killed": p.killed,
            }
            for p in story.people.values()
        },
        "lost": story.lost(),
        "failed_attempts": len(story.failures),
        "folder": result.folder,
        "model": result.model,
        "records": result.records,
    }


def _title(story: Story) -> str:
    return f"ridotto demo: {len(story.people)} participants, one model, nothing but masked vectors"


def _where(story: Story) -> Text:
    text = Text.assemble((f"round {story.round}/{story.rounds}", "bold cyan"), f"  {story.step}")
    if story.waiting:
        names = [name.removeprefix("participant-") for name in story.waiting]
        text.append(f": {story.answered} answered, waiting for {', '.join(names)}", "yellow")
    return text


def _accuracy(story: Story) -> Text:
    if not story.accuracy:
        return Text("accuracy  not yet", style="dim")
    low = min(story.accuracy) - 0.02
    bars = "".join(BARS[int((value - low) / (1.001 - low) * len(BARS))] for value in story.accuracy)
    return Text.assemble("accuracy  ", (bars, "green"), f"  {story.accuracy[-1]:.3f} on held-out digits")


def _row(of: Person) -> tuple[str, ...]:
    style = "red" if of.killed else "green" if of.finished else ""
    now = f"[{style}]{of.doing}[/]" if style else of.doing
    return of.name, str(of.examples), size(of.sent_bytes), size(of.received_bytes), now


def _kill_line(story: Story) -> str:
    names = " and ".join(p.name for p in story.people.values() if p.killed)
    return f"round {story.killed_in}: {names} killed while waited for (SIGKILL)"


def _notes(story: Story) -> list[Text]:
    notes = [Text(_kill_line(story), style="red")] if story.killed_in else []
    return notes + [Text(sentence, style="yellow") for sentence in story.happened()]


def _tables(result: Result) -> list[RenderableType]:
    story, verdict = result.story, result.verdict
    accuracies = {
        "federated": f"{verdict.federated:.3f}",
        "pooled data": f"{verdict.pooled:.3f}   one model, everybody's data in one place",
        "mean participant alone": f"{verdict.alone:.3f}",
    }
    rows = [(p.name + (" (killed)" if p.killed else ""), *_row(p)[1:4]) for p in story.people.values()]
    lost = {f"round {number}": f"lost {', '.join(names)}" for number, names in story.lost().items()}
    files = {"model": str(result.model), "round records": str(result.records), "everything else": str(result.folder)}
    below = verdict.pooled - verdict.federated
    relation = f"{abs(below) * 100:.1f} points {'below' if below > 0 else 'above'} pooled data"
    good = f"[bold green]good[/]: {relation}, at most 2 below are allowed"
    bad = f"[bold red]not good[/]: {relation}, at most 2 are allowed"
    return [
        "",
        pairs("accuracy on held-out digits", accuracies),
        "",
        table("bytes per participant", ("participant", "examples", "up", "down"), rows),
        "",
        pairs("", {**lost, **files}),
        "",
        f"{good if verdict.good else bad}  [dim]({result.seconds:.1f} s)[/]",
    ]
