"""The coordinator's last step of `pairwise`: check what is revealed, and find the masks that did not cancel."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from ridotto.crypto.prg import Mask
from ridotto.crypto.seal import ExchangeKey
from ridotto.crypto.shamir import SHARE_BYTES, reconstruct
from ridotto.errors import PeerProtocolError, ProtocolError, RoundFailedError
from ridotto.secagg.binding import MASK_LABEL, Secret, commit_seed, commit_share, pair_info
from ridotto.secagg.messages import COMMITMENTS_BYTES, SealedShares, Unmask
from ridotto.secagg.pairwise.group import Group
from ridotto.secagg.session import FailureCode


def commitments_at(message: SealedShares, place: int) -> tuple[bytes, bytes]:
    """Return an owner's two commitments for the holder at `place` in holder order."""
    at = COMMITMENTS_BYTES * place
    return message.commitments[at : at + 32], message.commitments[at + 32 : at + 64]


class Opening:
    """Collect what survivors reveal about one sum, and turn it into the masks that are left in it.

    names: of the roster. shares: what each member of U2 handed out. included: U3. Every share is checked against
    its owner's commitment when it arrives, so a forged one is refused with its holder's name and costs nothing.
    """

    def __init__(
        self,
        names: Sequence[str],
        corrupt: int,
        sid: bytes,
        group: Group,
        shares: Mapping[int, SealedShares],
        included: Sequence[int],
    ) -> None:
        self._names = names
        self._corrupt = corrupt
        self._sid = sid
        self._group = group
        self._shares = shares
        self._included = set(included)
        self._seeds: dict[int, bytes] = {}
        # By holder: whose shares it revealed, sorted, and the shares in one piece. A session of 128 reveals 16,000.
        self._revealed: dict[int, tuple[tuple[int, ...], bytes]] = {}
        self._complaints: dict[int, int] = dict.fromkeys(shares, 0)

    def take(self, holder: int, message: Unmask) -> None:
        """Take what one survivor reveals.

        Raises PeerProtocolError if anything in it is not what was committed to, or is missing; nothing of it counts
        then.
        """
        name = self._names[holder]
        if commit_seed(self._sid, holder, message.seed) != self._shares[holder].seed_commitment:
            raise PeerProtocolError(name, "its self-mask seed is not the one that it committed to")
        owners = tuple(revealed.owner for revealed in message.shares)
        # Who holds my shares is whose shares I hold: the graph has no direction.
        held = [owner for owner in self._group.holders[holder] if owner in self._shares]
        if sorted([*owners, *message.unopened]) != held or list(owners) != sorted(owners):
            raise PeerProtocolError(name, "it does not reveal exactly one share per member whose shares it holds")
        for revealed in message.shares:
            self._check_share(name, holder, revealed.owner, revealed.share)
        self._seeds[holder] = message.seed
        self._revealed[holder] = owners, b"".join(revealed.share for revealed in message.shares)
        for owner in message.unopened:
            self._complaints[owner] += 1

    def _check_share(self, name: str, holder: int, owner: int, share: bytes) -> None:
        place = bisect_left(self._group.holders[owner], holder)
        seed_share, mask_share = commitments_at(self._shares[owner], place)
        survived = owner in self._included
        secret, committed = (Secret.SEED, seed_share) if survived else (Secret.MASK_KEY, mask_share)
        if commit_share(self._sid, owner, holder, secret, share) != committed:
            raise PeerProtocolError(name, f"its share of {self._names[owner]}'s {secret.value.decode()} is forged")

    def masks(self) -> tuple[Mask, ...]:
        """Return the masks to add to the sum so that nothing but the inputs remains in it.

        Raises RoundFailedError(BAD_SHARES), blaming by name, if a secret can't be reconstructed.
        """
        masks = [Mask(self._seed_of(owner), -1) for owner in sorted(self._included)]
        for owner in sorted(set(self._shares) - self._included):
            masks += self._masks_towards(owner)
        return tuple(masks)

    def _seed_of(self, owner: int) -> bytes:
        if owner in self._seeds:
            return self._seeds[owner]
        seed = self._reconstruct(owner, Secret.SEED)
        if commit_seed(self._sid, owner, seed) != self._shares[owner].seed_commitment:
            raise self._inconsistent(owner, Secret.SEED)
        return seed

    def _masks_towards(self, owner: int) -> list[Mask]:
        """Return, negated, the masks that survivors added towards a member that left before its vector came."""
        key = ExchangeKey.from_bytes(self._reconstruct(owner, Secret.MASK_KEY))
        if key.public != self._group.keys[owner].mask:
            raise self._inconsistent(owner, Secret.MASK_KEY)
        masks = []
        for peer in self._group.neighbours(owner):
            if peer in self._included:
                public = self._group.keys[peer].mask
                seed = key.agree(public, self._sid, MASK_LABEL, pair_info(owner, peer))
                masks.append(Mask(seed, -1 if peer < owner else 1))
        return masks

    def _reconstruct(self, owner: int, secret: Secret) -> bytes:
        shares = dict(self._shares_of(owner))
        if len(shares) < self._group.threshold:
            what = f"{len(shares)} shares of {self._names[owner]}'s {secret.value.decode()}"
            complaints = self._complaints[owner]
            # More complaints than there are corrupt members: an honest one complains, so the owner is to blame.
            blame = (self._names[owner],) if complaints > self._corrupt else ()
            reason = f"{what}, {self._group.threshold} are needed; {complaints} could not open theirs"
            raise RoundFailedError(FailureCode.BAD_SHARES if blame else FailureCode.TOO_FEW, reason, blame)
        try:
            return reconstruct(shares, self._group.threshold)
        except ProtocolError as error:
            raise self._inconsistent(owner, secret) from error

    def _shares_of(self, owner: int) -> Iterator[tuple[int, bytes]]:
        """Yield (point, share) for every holder that revealed its share of this owner's secret."""
        for holder in self._group.holders[owner]:
            owners, shares = self._revealed.get(holder, ((), b""))
            place = bisect_left(owners, owner)
            if place < len(owners) and owners[place] == owner:
                yield holder + 1, shares[SHARE_BYTES * place : SHARE_BYTES * (place + 1)]

    def _inconsistent(self, owner: int, secret: Secret) -> RoundFailedError:
        name = self._names[owner]
        reason = f"the shares that {name} handed out of its {secret.value.decode()} do not fit together"
        return RoundFailedError(FailureCode.BAD_SHARES, reason, (name,))
