"""What the machines of a session with a committee need to know of it; `OneshotSetup` and `CommitteeSetup` say it."""

from __future__ import annotations

from typing import Protocol

from ridotto.secagg.committee_roles.roster import Roster
from ridotto.secagg.committee_roles.seals import Seal
from ridotto.secagg.session import Session


class SeatedSetup(Protocol):
    """Fix a session with a committee. layout: as in `Evidence`."""

    @property
    def session(self) -> Session:
        """Return the session."""

    @property
    def roster(self) -> Roster:
        """Return the committee."""

    @property
    def seal(self) -> Seal:
        """Return what keys of parcels are derived from."""

    @property
    def sid(self) -> bytes:
        """Return the session's id."""

    @property
    def layout(self) -> bytes:
        """Return what the context hashes besides the id."""

    @property
    def context(self) -> bytes:
        """Return what keys, seals and signatures are bound to."""

    @property
    def needed(self) -> int:
        """Return the fewest members that a book may have."""
