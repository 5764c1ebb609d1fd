"""Who is enrolled: names, keys, one-time tokens and the allow-list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from ridotto.coordinator.auth import check_enrolment, enrolment_token
from ridotto.coordinator.refusals import RefusalError, RefusalKind
from ridotto.coordinator.store import Participant, Store, TakenError, TokenError
from ridotto.rounds.service import Enrolment
from ridotto.secagg.session import Member

_log = logging.getLogger(__name__)


class Roster:
    """Know every participant by name and by key.

    allowed: name -> identity key (hex) of those who need no token, or None. helpers: the same of those who serve.
    """

    def __init__(self, store: Store, allowed: Mapping[str, str] | None, helpers: Mapping[str, str]) -> None:
        self._store = store
        self._allowed = {**(allowed or {}), **helpers} if helpers else allowed
        self._helpers = helpers
        self._participants: dict[str, Participant] = {}
        self._names: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._participants)

    def __contains__(self, name: str) -> bool:
        return name in self._participants

    async def load(self) -> None:
        """Read who is enrolled."""
        self._participants = await asyncio.to_thread(self._store.participants)
        self._names = {participant.key: name for name, participant in self._participants.items()}

    def name_of(self, key: bytes) -> str:
        """Return the name under which a key is enrolled. Raises RefusalError if it is not."""
        name = self._names.get(key)
        if name is None:
            raise RefusalError(RefusalKind.NOT_ENROLLED, f"the key {key.hex()[:16]} is not enrolled; enrol it first")
        return name

    def split(self, names: Iterable[str]) -> tuple[set[str], set[str]]:
        """Return who of these takes part, and who serves; nobody who is not enrolled."""
        enrolled = {name for name in names if name in self._participants}
        helpers = enrolled & self._helpers.keys()
        serving = {name for name in helpers if self._participants[name].key.hex() == self._helpers[name]}
        return enrolled - helpers, serving

    def members(self, names: Iterable[str]) -> list[Member]:
        """Return these participants as members of a round."""
        return [Member(name, self._participants[name].key) for name in names]

    async def enrol(self, enrolment: Enrolment, signer: bytes, now: float) -> bool:
        """Enrol a participant whose request was signed with `signer`; return whether it is new.

        Asking again with the same name and key is answered like the first time, and needs no token.
        Raises RefusalError with the reason.
        """
        key = check_enrolment(enrolment, signer)
        self._check_helper(enrolment.name, key.hex())
        known = self._participants.get(enrolment.name)
        if known is not None and known.key == key:
            return False
        if known is not None or key in self._names:
            raise RefusalError(RefusalKind.REFUSED, f"the name {enrolment.name} or this key is enrolled already")
        participant = Participant(enrolment.name, key, now)
        token = enrolment_token(enrolment, self._allowed)
        try:
            await asyncio.to_thread(self._store.enrol, participant, token)
        except TokenError as error:
            raise RefusalError(RefusalKind.NOT_ENROLLED, f"{error}; ask the operator for a new one") from error
        except TakenError as error:
            # Two copies of one request may be under way at once: the second finds what the first has done.
            if self._names.get(key) == enrolment.name:
                return False
            raise RefusalError(RefusalKind.REFUSED, str(error)) from error
        self._participants[enrolment.name] = participant
        self._names[key] = enrolment.name
        _log.info("%s is enrolled", enrolment.name)
        return True

    def _check_helper(self, name: str, key: str) -> None:
        """Refuse a helper's name to everybody else, and a participant's name to a helper."""
        if self._helpers.get(name, key) != key or (key in self._helpers.values() and name not in self._helpers):
            raise RefusalError(RefusalKind.REFUSED, "the plan names a helper with this name or key, and not both")
