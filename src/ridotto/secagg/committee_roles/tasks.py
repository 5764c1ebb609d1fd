"""What coordinators of protocols with a committee ask their driver to do, besides `secagg.tasks.Fold`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settle:
    """Take these contributions out of the sum of session `sid` again; the set is final then.

    removed: names and SHA-256 of their attachments, mostly none. Until here a driver keeps the attachments, on disk or
    in memory; after it, it forgets them.
    """

    sid: bytes
    removed: tuple[tuple[str, bytes], ...]
