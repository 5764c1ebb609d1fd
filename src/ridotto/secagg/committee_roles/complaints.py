"""Decide about parcels that members say they could not open.

Either the participant sealed rubbish or the member lies, and nobody else can see which. Whoever more than t members
complain about is at fault: one of them is honest. Where t or fewer complain, the participant is dropped as well,
because the member could not release a sum with it; but a member with many such complaints is set aside instead, so that
one liar can't empty a session. Dropping never reveals anything: the set that is left has the minimum or is not opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

DOUBTFUL_COMPLAINTS = 4
"""So many participants a single member may have dropped on its word."""


@dataclass(frozen=True)
class Verdict:
    """Name the participants who are dropped, those of them who are certainly at fault, and the seats set aside."""

    dropped: frozenset[int]
    at_fault: frozenset[int]
    aside: frozenset[int]


def settle(complaints: Mapping[int, Collection[int]], corrupt: int, needed: int) -> Verdict:
    """Decide about all complaints at once.

    complaints: seat -> participants it complains about, an empty list for most; the seats are those who answered.
    corrupt: t. needed: never fewer seats are left than this, if there were as many.
    """
    counts = Counter(participant for bad in complaints.values() for participant in set(bad))
    at_fault = frozenset(participant for participant, count in counts.items() if count > corrupt)
    doubtful = {seat: set(bad) - at_fault for seat, bad in complaints.items()}
    aside: set[int] = set()
    for seat in sorted(doubtful, key=lambda one: (-len(doubtful[one]), one)):
        if len(doubtful[seat]) > DOUBTFUL_COMPLAINTS and len(complaints) - len(aside) > needed:
            aside.add(seat)
    believed = {participant for seat, bad in doubtful.items() if seat not in aside for participant in bad}
    return Verdict(at_fault | believed, at_fault, frozenset(aside))
