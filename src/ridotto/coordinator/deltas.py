"""The deltas of the last rounds, for participants that hold a recent model: each a blob, named by the model it makes.

A delta is written before its model is committed, and belongs to the federation once the model does; after a kill, those
of models that were never published go. As many are kept as together are shorter than a model: who is further behind
fetches that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ridotto.coordinator.blobs import DELTAS, Blobs, delta_name
from ridotto.core.wire import digest


@dataclass(frozen=True)
class _Link:
    """A delta that leads to the model of a round from that of the round before."""

    round: int
    name: str


class Deltas:
    """Keep deltas and say which of them lead from one model to another. `between` may be called from any thread."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._rounds: Mapping[bytes, int] = {}
        self._links: Mapping[int, _Link] = {}
        self._written: dict[bytes, str] = {}

    def load(self, models: Mapping[bytes, int], most: int) -> None:
        """Take what is stored. models: SHA-256 of each published model -> its round. most: deltas that are worth it."""
        links, rounds = {}, {model.hex(): number for model, number in models.items()}
        for path in sorted((self._blobs.folder / DELTAS).iterdir()):
            number = rounds.get(path.name.partition(".")[0])
            if number is not None:
                links[number] = _Link(number, f"{DELTAS}/{path.name}")
        self._written = {}
        self._rounds = models
        self._set(links, most)
        self._blobs.sweep(DELTAS, [link.name for link in self._links.values()])

    def write(self, model: bytes, delta: bytes) -> None:
        """Store what leads to a model that is about to be committed. Raises StorageError as `Blobs.write` does."""
        name = delta_name(model, digest(delta))
        self._blobs.write(name, delta)
        self._written[model] = name

    def publish(self, model: bytes, number: int, most: int) -> None:
        """Take note that a model was committed, as that of round `number`, and let go of what is too old."""
        name = self._written.pop(model, None)
        before = {link.name for link in self._links.values()}
        self._rounds = {**self._rounds, model: number}
        self._set({**self._links, **({} if name is None else {number: _Link(number, name)})}, most)
        self._blobs.delete(before - {link.name for link in self._links.values()})

    def between(self, held: bytes, wanted: bytes) -> tuple[Path, ...]:
        """Return the files whose deltas lead from one model to another, in order; none if the whole model must do."""
        rounds, links = self._rounds, self._links
        first, last = rounds.get(held), rounds.get(wanted)
        if first is None or last is None:
            return ()
        found = [links.get(number) for number in range(first + 1, last + 1)]
        paths = tuple(self._blobs.path(link.name) for link in found if link is not None)
        return paths if len(paths) == len(found) and all(path.is_file() for path in paths) else ()

    def _set(self, links: Mapping[int, _Link], most: int) -> None:
        newest = max(self._rounds.values(), default=0)
        self._links = {number: link for number, link in links.items() if number > newest - most}
