"""A bench for secure sums: real machines, an independent adder, and a network that tests may attack."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ridotto.core.fixedpoint import container
from ridotto.core.machine import COORDINATOR, Buffer, Envelope, Finish, Machine, Router
from ridotto.core.packing import unpack
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec, Message
from ridotto.crypto.prg import add_masks
from ridotto.crypto.seal import IdentityKey
from ridotto.secagg.committee.masks import MaskedSum, sum_masks
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.drawn import name_in_seat
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate, Encapsulated, Settle
from ridotto.secagg.lanes import Lanes
from ridotto.secagg.oneshot.ciphersum import SessionSum
from ridotto.secagg.oneshot.drawn import setup_of
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import CommitteeSession, Member, Session, Timeouts, session_id
from ridotto.secagg.tasks import Fold, Open, Opened

BITS = 32
DRAWN = ("oneshot",)
"""Protocols whose committee is drawn from the participants; here everybody has a seat."""

SERVED = ("committee",)
"""Protocols whose committee is made of helpers: here four, in two slots, and one of them may be corrupt."""

HELPERS = ("h000", "h001", "h002", "h003")

ENTRIES = 5
Tamper = Callable[[Envelope], Iterable[Envelope]]


@cache
def identity(name: str) -> IdentityKey:
    return IdentityKey.generate(insecure_seeded_rng(zlib.crc32(name.encode())))


def make_session(protocol: str = "pairwise", count: int = 5, minimum: int = 3, **changes: object) -> Session:
    """Describe a session. protocol: its name, and behind a space its seal where that is not the usual one."""
    protocol, _, seal = protocol.partition(" ")
    changes |= {"seal": seal} if seal else {}
    members = tuple(Member(f"p{i:03}", identity(f"p{i:03}").public) for i in range(count))
    bits = int(changes.get("bits", BITS))  # type: ignore[call-overload]
    lanes = Lanes(bits, count, (1000,))
    settings: dict[str, object] = {
        "protocol": protocol,
        "plan": b"p" * 32,
        "model": b"m" * 32,
        "nonce": b"n" * 32,
        "round": 1,
        "shard": 0,
        "members": members,
        "length": ENTRIES + lanes.size,
        "bits": bits,
        "minimum": minimum,
    }
    if protocol in DRAWN:
        return CommitteeSession(**(settings | {"committee": count, "tail": lanes.size} | changes))  # type: ignore[arg-type]
    if protocol in SERVED:
        helpers = tuple(Member(name, identity(name).public) for name in HELPERS)
        served = {"committee": len(helpers), "tail": lanes.size, "helpers": helpers, "helpers_corrupt": 1}
        return CommitteeSession(**(settings | served | changes))  # type: ignore[arg-type]
    return Session(**(settings | changes))  # type: ignore[arg-type]


def make_vector(session: Session, index: int) -> np.ndarray:
    """Give participant `index` the entries index+1, 2(index+1), ... and the weight 10(index+1)."""
    lanes = Lanes(session.bits, len(session.members), (1000,))
    entries = session.length - lanes.size
    values = ((index + 1) * np.arange(1, entries + 1)) % 2 ** min(session.bits, 32)
    return np.concatenate([values.astype(container(session.bits)), lanes.write([10 * (index + 1)])])


@dataclass
class World:
    """Run one session. `tamper` sees and changes every envelope; `swap` replaces participants' machines."""

    session: Session
    tamper: Tamper = lambda envelope: [envelope]
    seed: int = 1
    sums: dict[bytes, np.ndarray] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    opened: bool = False
    sent: list[Envelope] = field(default_factory=list)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    swap: dict[str, Callable[[int], Machine]] = field(default_factory=dict)
    ciphers: SessionSum | None = None
    masked: MaskedSum | None = None
    drawn: dict[str, Encapsulated] = field(default_factory=dict)
    """What was encapsulated, by participant: the part of a run that follows from no seed."""

    def run(self) -> Finish:
        protocol = PROTOCOLS[self.session.protocol]
        rng = insecure_seeded_rng(self.seed)
        machines: dict[str, object] = {
            member.name: protocol.participant(
                self.session,
                member.name,
                identity(member.name),
                self.vectors.get(member.name, make_vector(self.session, i)),
                rng.child(i),
            )
            for i, member in enumerate(self.session.members)
        }
        helpers = self.session.helpers if isinstance(self.session, CommitteeSession) else ()
        for i, device in enumerate(helpers or self.session.members):
            seat = protocol.member(self.session, device.name, identity(device.name), rng.child("seat", i))
            if seat is not None:
                machines[name_in_seat(self.session, device.name)] = seat
        for name, make in self.swap.items():
            machines[name] = make([member.name for member in self.session.members].index(name))
        machines[COORDINATOR] = protocol.coordinator(self.session, Timeouts(100, 10))
        self.coordinator = machines[COORDINATOR]
        self.codec = Codec(*protocol.messages, attachment_limit=1 << 20)
        self.router = Router(machines, self._perform, self._link)  # type: ignore[arg-type]
        self.finished = self.router.run()
        return self.finished[COORDINATOR]

    @property
    def refused(self) -> dict[str, str]:
        """Who was refused, by anybody, and why (the last reason)."""
        return {refusal.peer: refusal.why for _, refusal in self.router.refusals}

    def last(self, sender: str, kind: str) -> Message:
        """Return the last message of a kind that a party sent."""
        return [e.message for e in self.sent if e.sender == sender and type(e.message).__name__ == kind][-1]

    def total(self, names: Iterable[str]) -> np.ndarray:
        """Compute what the sum over `names` must be, without any protocol."""
        index = {member.name: i for i, member in enumerate(self.session.members)}
        dtype = container(self.session.bits)
        with np.errstate(over="ignore"):
            return sum((make_vector(self.session, index[name]) for name in names), np.zeros(1, dtype)).astype(dtype)

    def opened_sum(self) -> np.ndarray:
        mask = np.array((1 << self.session.bits) - 1, dtype=container(self.session.bits))
        return self.sums[session_id(self.session)] & mask

    def _ciphers(self) -> SessionSum:
        if self.ciphers is None:
            self.ciphers = SessionSum(setup_of(self.session).shape, self._read_lanes)
        return self.ciphers

    def _masked(self) -> MaskedSum:
        if self.masked is None:
            self.masked = MaskedSum(self.session.length, self.session.bits, self._read_lanes)
        return self.masked

    def _read_lanes(self, total: np.ndarray) -> tuple[int, bool]:
        lanes = Lanes(self.session.bits, len(self.session.members), (1000,))
        read = lanes.read(total[-lanes.size :])
        return read.count, read.zero

    def _link(self, envelope: Envelope) -> Iterable[Envelope]:
        self.sent.append(envelope)
        for delivered in self.tamper(envelope):
            # Everything crosses the real wire, so a test can't send what a socket could not.
            frame = self.codec.encode(delivered.message, delivered.attachment)
            message, attachment = self.codec.decode(frame, delivered.sender)
            yield Envelope(delivered.sender, delivered.to, message, attachment, delivered.at)

    def _perform(self, owner: str, task: object, attachment: Buffer | None) -> Message | None:
        match task:
            case Fold(sid, sender, _):
                if attachment is None:
                    raise AssertionError("a fold without a vector")
                self.folded.append(sender)
                self._fold(sid, sender, attachment)
                return None
            case Settle():
                (self._masked() if self.session.protocol == "committee" else self._ciphers()).settle(task)
                return None
            case Encapsulate():
                return self.drawn.setdefault(owner, encapsulate_all(task))
            case SumMasks():
                return sum_masks(task)
            case Keep():
                if attachment is None:
                    raise AssertionError("masks to be kept that did not come")
                self._masked().keep(task, attachment)
                return None
            case Open() | OpenCiphers() | Unmask():
                if self.opened:
                    raise AssertionError("opened twice")
                self.opened = True
                return self._open(task)
        raise AssertionError(f"unknown task {task}")

    def _fold(self, sid: bytes, sender: str, attachment: Buffer) -> None:
        match self.session.protocol:
            case "oneshot":
                self._ciphers().fold(sender, attachment)
            case "committee":
                self._masked().fold(sender, attachment)
            case _:
                total = self.sums.setdefault(sid, np.zeros(self.session.length, container(self.session.bits)))
                total += unpack(attachment, self.session.bits, self.session.length)

    def _open(self, task: Open | OpenCiphers | Unmask) -> Opened:
        match task:
            case OpenCiphers(sid):
                answer: Opened = self._ciphers().open(task)
                if self._ciphers().opened is not None:
                    self.sums[sid] = self._ciphers().opened
                return answer
            case Unmask(sid):
                answer = self._masked().unmask(task)
                self.sums[sid] = self._masked().total
                return answer
            case Open(sid, masks):
                add_masks(self.sums[sid], masks, sid)
                return Opened(sid, *self._counted(self.opened_sum()))

    def _counted(self, total: np.ndarray) -> tuple[int, bool]:
        count, zero = self._read_lanes(total)
        return min(count, 2**48), zero
