"""What a coordinator writes into its log for its operator: one line when it opens, one for every attempt, faults."""

from __future__ import annotations

import logging
import math

from ridotto.coordinator.progress import Run
from ridotto.coordinator.settings import FederationSettings
from ridotto.privacy.statement import PrivacyStatement
from ridotto.rounds.record import RoundRecord
from ridotto.rounds.service import RunState
from ridotto.secagg.committee.coordinator import Disagreement
from ridotto.secagg.committee_roles.agreement import Equivocation
from ridotto.secagg.committee_roles.drawn import device_of
from ridotto.secagg.committee_roles.evidence import MemberFaults

_log = logging.getLogger(__name__)


def log_opening(settings: FederationSettings, run: Run, spent: PrivacyStatement | None) -> None:
    """Say how far the federation is."""
    _log.info("federation %r is open: round %d of %d%s", settings.name, run.round, settings.rounds, _words(spent))
    _log_end(run)


def log_record(record: RoundRecord, run: Run) -> None:
    """Say how an attempt has ended, what was spent, and whether it was the last one. run: after it."""
    spent = _words(record.privacy)
    if record.failure:
        _log.warning("attempt %d at round %d failed: %s%s", record.attempt, record.round, record.failure, spent)
    else:
        _log.info("round %d is done: %d participants are in its sum%s", record.round, record.participants, spent)
    _log_end(run)


def log_committee(published: object) -> None:
    """Say which seats of a committee did not do their part. Evidence of what was summed is not logged."""
    match published:
        case MemberFaults(faults=faults):
            for seat, why in faults:
                _log.info("%s did not do its part on its session's committee: %s", device_of(seat), why)
        case Equivocation(member=seat):
            _log.warning("%s acknowledged two sets in one session: both bear its signature", device_of(seat))
        case Disagreement(slot=slot, first=(one, _), second=(other, _)):
            names = device_of(one), device_of(other)
            _log.warning("%s and %s released different masks for slot %d: both bear their signatures", *names, slot)


def _log_end(run: Run) -> None:
    if run.state is RunState.DONE and run.reason:
        _log.info("training ends after round %d: %s", run.round, run.reason)
    elif run.state is RunState.FAILED:
        _log.warning("training stops: %s", run.reason)


def _words(spent: PrivacyStatement | None) -> str:
    """Return what was spent as the end of a sentence; epsilon is rounded up."""
    if spent is None:
        return ""
    epsilon = "infinite" if spent.epsilon is None else f"{math.ceil(spent.epsilon * 1000) / 1000:g}"
    of = "" if spent.budget is None else f" of {spent.budget:g}"
    return f"; epsilon {epsilon}{of} at delta {spent.delta:g} ({spent.relation}) is spent"
