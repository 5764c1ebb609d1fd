"""Nobody takes part or serves in one attempt twice, so no committee agrees on two sets of one session."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import Codec, Message
from ridotto.errors import PeerProtocolError
from ridotto.participant.attempts import require_attempt, require_later
from ridotto.participant.help import Helper
from ridotto.participant.state import StateFile
from ridotto.rounds.messages import Closed, messages_of_all
from ridotto.rounds.service import Inbox, RunState
from ridotto.secagg.committee_roles.messages import MemberKey
from ridotto.secagg.session import session_id
from tests.conformance.world import identity
from tests.participant.bench import Bench, take_part
from tests.participant.fake import FakeCoordinator
from tests.rounds.federation import ANYTHING, Federation, make_plan
from tests.rounds.test_helping import announced

CODEC = Codec(*messages_of_all())
NAME = "h000"


@dataclass
class Coordinator:
    """Give a helper the inboxes that it is told to give, and note what the helper says."""

    inboxes: list[Inbox]
    said: list[Message] = field(default_factory=list)

    def inbox(self, attempt: int, after: int) -> Inbox:
        return self.inboxes.pop(0)

    def send(self, attempt: int, header: bytes, attachment: Any = None) -> None:
        self.said.append(CODEC.decode(header, NAME)[0])


def inbox(attempt: int, *messages: Message, after: int = 0) -> Inbox:
    frames = tuple(CODEC.header(message) for message in messages)
    return Inbox(attempt=attempt, state=RunState.RUNNING, reason="", after=after, frames=frames)


def helper(folder: Path, coordinator: Coordinator) -> Helper:
    state = StateFile(folder, "http://coordinator", NAME, identity(NAME).public)
    made = Helper(coordinator, NAME, identity(NAME), ANYTHING, state)  # type: ignore[arg-type]
    made._coordinator = identity(COORDINATOR).public
    return made


def session_of(attempt: int) -> tuple[Message, Closed]:
    fed = Federation(make_plan(protocol="committee"))
    announce = announced(fed, NAME, attempt=attempt)
    return announce, Closed(session_id(announce.session), b"m" * 32)


def test_a_helper_offers_one_key_for_a_session_whatever_it_is_told(tmp_path: Path) -> None:
    """Announced again: after its end, in a later attempt, and to the process that was started after a kill."""
    announce, closed = session_of(3)
    coordinator = Coordinator(
        [inbox(3, announce, announce, closed), inbox(3, announce, after=3), inbox(4, announce), inbox(2, announce)]
    )
    serving = helper(tmp_path, coordinator)
    for _ in range(3):
        serving._poll()
    with pytest.raises(PeerProtocolError, match="went back to attempt 2, and 4 has been before"):
        serving._poll()
    serving._state.close()
    again = helper(tmp_path, Coordinator([inbox(3, announce)]))
    again._poll()
    assert [type(message) for message in coordinator.said] == [MemberKey]
    assert again._client.said == []  # type: ignore[attr-defined]


def test_a_helper_serves_in_the_next_attempt(tmp_path: Path) -> None:
    (first, closed), (second, _) = session_of(3), session_of(4)
    coordinator = Coordinator([inbox(3, first, closed), inbox(4, second)])
    serving = helper(tmp_path, coordinator)
    for _ in range(2):
        serving._poll()
    assert len({message.public for message in coordinator.said if isinstance(message, MemberKey)}) == 2


def test_a_participant_goes_back_to_no_attempt(tmp_path: Path) -> None:
    take_part(Bench(tmp_path, FakeCoordinator(rounds=2)))
    with pytest.raises(PeerProtocolError, match="went back to attempt 0, and 2 has been before"):
        take_part(Bench(tmp_path, FakeCoordinator(rounds=2)))


def test_a_session_of_another_attempt_is_refused() -> None:
    announce, _ = session_of(3)
    require_attempt(announce, 3)  # type: ignore[arg-type]
    with pytest.raises(PeerProtocolError, match="announced a session of attempt 3 in attempt 4"):
        require_attempt(announce, 4)  # type: ignore[arg-type]
    require_later(4, 4)
