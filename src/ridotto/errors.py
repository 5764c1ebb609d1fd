"""Everything that ridotto can raise, as one tree.

    RidottoError                 every error of ours; `exit_code` is what the command line ends with
    ├── ConfigError              a setting, a file or an argument is wrong                      (2)
    │   └── MissingExtraError    an optional dependency is needed and not installed             (2)
    ├── PlanError                a round plan asks for an impossible combination                (3)
    ├── DataError                a model, a data set or an update does not fit                  (4)
    ├── ProtocolError            somebody broke the protocol
    │   ├── LocalProtocolError   our caller used a machine wrongly: a bug on this side          (70)
    │   └── PeerProtocolError    another party sent something that is refused, with its name    (5)
    ├── ConsentError             the data holder's own policy refuses the round                 (6)
    ├── RefusedError             the coordinator refuses this participant, with its reason      (7)
    ├── UnreachableError         the other side can't be reached                                (8)
    ├── StorageError             something could not be stored or read back                     (9)
    └── RoundFailedError         a round ended without a sum: too few answered, a check failed  (10)

Two kinds of blame are kept apart (the idea is h11's): `LocalProtocolError` says "you", and
`PeerProtocolError` says "they". Messages say what was found, what was expected and what to do. They
never carry secrets, updates or keys.
"""

from __future__ import annotations


class RidottoError(Exception):
    """Stand at the root of every error that ridotto raises on purpose."""

    exit_code = 1


class ConfigError(RidottoError):
    """Report a wrong setting, file or argument."""

    exit_code = 2


class MissingExtraError(ConfigError):
    """Report an optional dependency that is needed here and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is needed here and not installed: pip install 'ridotto[{extra}]'")


class PlanError(RidottoError):
    """Refuse a plan that asks for an impossible or unsafe combination."""

    exit_code = 3


class DataError(RidottoError):
    """Report a model, a data set or an update that does not fit."""

    exit_code = 4


class ProtocolError(RidottoError):
    """Stand above the two kinds of blame."""


class LocalProtocolError(ProtocolError):
    """Report that this side used a machine wrongly: a bug in the driver, never a peer's fault."""

    exit_code = 70


class PeerProtocolError(ProtocolError):
    """Refuse what another party sent.

    peer: the party's name, as its messages were authenticated. why: one clause, without secrets.
    """

    exit_code = 5

    def __init__(self, peer: str, why: str) -> None:
        self.peer = peer
        self.why = why
        super().__init__(f"{peer}: {why}")


class ConsentError(RidottoError):
    """Refuse to take part, because the data holder's own policy says so."""

    exit_code = 6


class RefusedError(RidottoError):
    """Report that the coordinator refused this participant, with the reason it gave."""

    exit_code = 7


class UnreachableError(RidottoError):
    """Report that the other side can't be reached."""

    exit_code = 8


class StorageError(RidottoError):
    """Report that something could not be stored or read back: disk full, damaged file."""

    exit_code = 9


class RoundFailedError(RidottoError):
    """End a round without a sum.

    code: a stable word (see `secagg.session.FailureCode`). blame: names of the parties at fault, possibly none.
    """

    exit_code = 10

    def __init__(self, code: str, reason: str, blame: tuple[str, ...] = ()) -> None:
        self.code = code
        self.reason = reason
        self.blame = blame
        super().__init__(f"{code}: {reason}")
