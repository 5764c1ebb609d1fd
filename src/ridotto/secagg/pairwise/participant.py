"""The participant's half of `pairwise`."""

from __future__ import annotations

from collections.abc import Iterable

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, Effect, Finish, Send
from ridotto.core.packing import pack
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.wire import Message, digest
from ridotto.crypto.prg import Mask, add_masks
from ridotto.crypto.seal import ExchangeKey, IdentityKey, open_sealed, seal, verify
from ridotto.crypto.shamir import SHARE_BYTES, share
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError
from ridotto.secagg.binding import (
    BOX_LABEL,
    CONSISTENCY_CONTEXT,
    KEYS_CONTEXT,
    MASK_LABEL,
    Secret,
    box_context,
    commit_seed,
    commit_share,
    keys_statement,
    pair_info,
    survivors_statement,
)
from ridotto.secagg.messages import (
    Box,
    Consistency,
    Delivery,
    Evidence,
    KeyBook,
    Masked,
    PublicKeys,
    Revealed,
    SealedShares,
    Survivors,
    Unmask,
    Vote,
)
from ridotto.secagg.pairwise.group import Group, form_group
from ridotto.secagg.session import Session, index_of, session_id

BOX_KEY_BYTES = 16
"""One direction's half of what a pair agrees on for boxes: an AES-128 key."""


class PairwiseParticipant:
    """Mask one vector and help to unmask the sum.

    session: checked by the caller against its own policy. vector: elements mod 2^bits, shape (session.length,);
    overwritten. rng: secret. Every refusal of a coordinator's message leaves the machine as it was, and nothing
    that was refused is ever answered, so a coordinator that lies gets nothing.
    """

    def __init__(self, session: Session, me: str, identity: IdentityKey, vector: IntVector, rng: Rng) -> None:
        if len(vector) != session.length:
            raise LocalProtocolError(f"the vector has {len(vector)} elements, the session {session.length}")
        self._session = session
        self._sid = session_id(session)
        self._me = index_of(session, me)
        self._identity = identity
        self._vector: IntVector | None = vector
        # Two vectors under one mask would reveal their difference. A participant that is built again from its seed has
        # the same vector, unless its state file was put back, or another machine or version rounds differently; so the
        # vector is part of what everything secret is drawn from.
        self._rng = SecretRng(rng.bytes(SEED_BYTES)).child(self._sid.hex(), digest(vector.data).hex())
        self._exchange = ExchangeKey.generate(self._rng)
        self._mask_key = ExchangeKey.generate(self._rng)
        self._seed = self._rng.bytes(SEED_BYTES)
        self._next: type[Message] | None = KeyBook
        self._held: dict[int, tuple[bytes, bytes]] = {}
        self._unopened: tuple[int, ...] = ()
        self._pairs: dict[int, tuple[bytes, bytes]] = {}

    def start(self, now: float) -> list[Effect]:
        """Step 0: advertise signed keys."""
        exchange, mask = self._exchange.public, self._mask_key.public
        statement = keys_statement(self._sid, self._me, exchange, mask)
        return [Send(COORDINATOR, PublicKeys(self._sid, exchange, mask, self._identity.sign(KEYS_CONTEXT, statement)))]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the coordinator's next message; each comes once and in order.

        Raises PeerProtocolError if it is out of order, of another session, or anything in it does not hold.
        """
        if sender != COORDINATOR:
            raise PeerProtocolError(sender, "only the coordinator speaks to a participant")
        if type(message) is not self._next:
            expected = self._next.__name__ if self._next else "nothing more"
            raise _refuse(f"{type(message).__name__} came where {expected} belongs")
        match message:
            case KeyBook(sid=self._sid):
                return self._share(message)
            case Delivery(sid=self._sid):
                return self._mask(message)
            case Survivors(sid=self._sid):
                return self._vouch(message)
            case Evidence(sid=self._sid):
                return self._reveal(message)
            case _:
                raise _refuse(f"its {type(message).__name__} belongs to another session")

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _share(self, message: KeyBook) -> list[Effect]:
        """Step 1: check everyone's signed keys, then hand out shares of both secrets."""
        self._check_book(message)
        group = form_group(self._session, self._sid, message.entries)
        # With a threshold of 1 every share would be the secret: a session of one hides nobody.
        if not 2 <= group.threshold <= len(group.holders[self._me]):
            raise _refuse(f"{len(group.holders[self._me])} holders can't share with a threshold of {group.threshold}")
        self._pairs = {peer: self._agree(group, peer) for peer in group.neighbours(self._me)}
        self._group = group
        self._next = Delivery
        return [Send(COORDINATOR, self._seal_shares(group))]

    def _agree(self, group: Group, peer: int) -> tuple[bytes, bytes]:
        """Agree with a neighbour on 32 bytes for boxes, 16 a direction, and on the seed of the mask between us."""
        entry, info = group.keys[peer], pair_info(self._me, peer)
        try:
            boxes = self._exchange.agree(entry.exchange, self._sid, BOX_LABEL, info)
            return boxes, self._mask_key.agree(entry.mask, self._sid, MASK_LABEL, info)
        except ProtocolError as error:
            raise _refuse(f"its key book has unusable keys of {self._session.members[peer].name}") from error

    def _check_book(self, message: KeyBook) -> None:
        members = [entry.member for entry in message.entries]
        if members != sorted(set(members)) or members[-1:] > [len(self._session.members) - 1]:
            raise _refuse("its key book is not a sorted list of members")
        if len(members) < self._session.minimum:
            raise _refuse(f"its key book has {len(members)} members, the minimum is {self._session.minimum}")
        own = [entry for entry in message.entries if entry.member == self._me]
        if not own or (own[0].exchange, own[0].mask) != (self._exchange.public, self._mask_key.public):
            raise _refuse("its key book does not show my keys")
        publics = {key for entry in message.entries for key in (entry.exchange, entry.mask)}
        if len(publics) != 2 * len(members):
            raise _refuse("its key book shows one key twice")
        for entry in message.entries:
            if entry.member != self._me:
                member = self._session.members[entry.member]
                statement = keys_statement(self._sid, entry.member, entry.exchange, entry.mask)
                _check(f"the keys of {member.name}", member.key, KEYS_CONTEXT, statement, entry.signature)

    def _seal_shares(self, group: Group) -> SealedShares:
        holders = group.holders[self._me]
        points = [holder + 1 for holder in holders]
        seeds = share(self._seed, group.threshold, points, self._rng)
        masks = share(self._mask_key.to_bytes(), group.threshold, points, self._rng)
        boxes, commitments = [], []
        for holder, seed_share, mask_share in zip(holders, seeds, masks, strict=True):
            for secret, value in ((Secret.SEED, seed_share), (Secret.MASK_KEY, mask_share)):
                commitments.append(commit_share(self._sid, self._me, holder, secret, value))
            if holder == self._me:
                self._held[self._me] = (seed_share, mask_share)
                continue
            context = box_context(self._sid, group.book, self._me, holder)
            boxes.append(seal(self._box_key(self._me, holder), seed_share + mask_share, context))
        commitment = commit_seed(self._sid, self._me, self._seed)
        return SealedShares(self._sid, group.book, commitment, tuple(boxes), b"".join(commitments))

    def _box_key(self, owner: int, holder: int) -> bytes:
        """Return the key of one direction of a pair: each key seals one message only."""
        boxes, _ = self._pairs[holder if owner == self._me else owner]
        return boxes[:BOX_KEY_BYTES] if owner < holder else boxes[BOX_KEY_BYTES:]

    def _mask(self, message: Delivery) -> list[Effect]:
        """Step 2: open what is meant for me, mask the vector towards all who shared, send it."""
        owners = [box.owner for box in message.boxes]
        if owners != sorted(set(owners)) or not set(owners) <= set(self._group.neighbours(self._me)):
            raise _refuse("it delivered boxes of members that are not my neighbours, or unsorted")
        mine = int(self._me in self._group.holders[self._me])
        if len(owners) + mine < self._group.threshold or len(owners) + 1 < self._least():
            raise _refuse(f"it delivered {len(owners)} boxes, too few to hide among")
        self._open_boxes(message.boxes)
        self._next = Survivors
        return [self._send_masked(owners)]

    def _least(self) -> int:
        """Return how many participants, this one included, must remain visible from here.

        In a complete graph that is the session's minimum. In a sparse one a participant sees its neighbours only
        and the minimum is checked on the survivor list.
        """
        complete = len(self._group.holders[self._me]) == len(self._group.keys)
        return self._session.minimum if complete else 2

    def _open_boxes(self, boxes: tuple[Box, ...]) -> None:
        unopened = []
        for box in boxes:
            context = box_context(self._sid, self._group.book, box.owner, self._me)
            try:
                shares = open_sealed(self._box_key(box.owner, self._me), box.sealed, context)
            except ProtocolError:
                unopened.append(box.owner)
                continue
            pair = (shares[:SHARE_BYTES], shares[SHARE_BYTES:])
            if self._commitments(box.owner, pair) == (box.seed_share, box.mask_share):
                self._held[box.owner] = pair
            else:
                unopened.append(box.owner)
        self._unopened = tuple(unopened)

    def _commitments(self, owner: int, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        seed = commit_share(self._sid, owner, self._me, Secret.SEED, pair[0])
        return seed, commit_share(self._sid, owner, self._me, Secret.MASK_KEY, pair[1])

    def _send_masked(self, owners: Iterable[int]) -> Send:
        vector = self._vector
        if vector is None:
            raise LocalProtocolError("the vector was masked before")
        self._vector = None
        masks = [Mask(self._seed, 1)]
        masks += [Mask(self._pairs[peer][1], 1 if self._me < peer else -1) for peer in owners]
        self._sharers = {self._me, *owners}
        add_masks(vector, masks, self._sid)
        # Masks fill the container; the ring is smaller where the width is none of 8, 16, 32, 64.
        vector &= vector.dtype.type((1 << self._session.bits) - 1)
        packed = pack(vector, self._session.bits)
        return Send(COORDINATOR, Masked(digest=digest(packed), size=len(packed), sid=self._sid), packed)

    def _vouch(self, message: Survivors) -> list[Effect]:
        """Step 3: check the survivor list and sign it."""
        included = message.included
        if list(included) != sorted(set(included)) or not set(included) <= set(self._group.keys):
            raise _refuse("its survivor list is not a sorted list of members of the key book")
        if self._me not in included:
            raise _refuse("its survivor list leaves me out; my shares stay with me")
        if len(included) < max(self._session.minimum, self._least()):
            raise _refuse(f"its survivor list has {len(included)} members, the minimum is {self._session.minimum}")
        if not set(included) & set(self._group.holders[self._me]) <= self._sharers:
            raise _refuse("its survivor list names members that shared no masks with me")
        self._included = included
        self._next = Evidence
        statement = survivors_statement(self._sid, self._group.book, included)
        return [Send(COORDINATOR, Consistency(self._sid, self._identity.sign(CONSISTENCY_CONTEXT, statement)))]

    def _reveal(self, message: Evidence) -> list[Effect]:
        """Step 4: see that enough others were shown the same list; then reveal one share per member."""
        self._check_votes(message.votes)
        survivors = set(self._included)
        shares = tuple(
            Revealed(owner, pair[0] if owner in survivors else pair[1])
            for owner, pair in sorted(self._held.items())
            if owner in self._sharers
        )
        unmask = Unmask(self._sid, self._seed, shares, self._unopened)
        # Both secrets of everyone are forgotten here: this machine can't be asked a second time.
        self._held, self._next = {}, None
        return [Send(COORDINATOR, unmask), Finish()]

    def _check_votes(self, votes: tuple[Vote, ...]) -> None:
        statement = survivors_statement(self._sid, self._group.book, self._included)
        voters = [vote.member for vote in votes]
        holders = set(self._group.holders[self._me]) & set(self._included)
        if voters != sorted(set(voters)):
            raise _refuse("its evidence is not sorted by member")
        # Keys alone prove nobody's presence: they may be of an earlier session with the same sid, or of members that
        # were shown another key book. Only who signs this list has masked towards all of it, so the minimum is counted
        # in signatures.
        counted, needed = 0, max(self._group.threshold, self._least())
        # Verifying stops there: more signatures could not change the answer.
        for vote in (vote for vote in votes if vote.member in holders):
            if counted == needed:
                return
            member = self._session.members[vote.member]
            what = f"the survivor list as {member.name} signed it"
            _check(what, member.key, CONSISTENCY_CONTEXT, statement, vote.signature)
            counted += 1
        if counted < needed:
            raise _refuse(f"{counted} members vouch for its survivor list, {needed} are needed")


def _check(what: str, key: bytes, context: str, statement: bytes, signature: bytes) -> None:
    try:
        verify(key, context, statement, signature)
    except ProtocolError as error:
        raise _refuse(f"{what} bear no valid signature") from error


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
