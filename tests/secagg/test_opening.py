"""The last step alone: what is rebuilt from shares is checked, and who shared nonsense is named.

Three members, threshold 2. p000 and p001 survive and reveal; p002 shared and left, before or after its vector came.
"""

from __future__ import annotations

import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.prg import Mask
from ridotto.crypto.seal import ExchangeKey
from ridotto.crypto.shamir import share
from ridotto.errors import PeerProtocolError, RoundFailedError
from ridotto.secagg.binding import MASK_LABEL, Secret, commit_seed, commit_share, pair_info
from ridotto.secagg.messages import KeyEntry, Revealed, SealedShares, Unmask
from ridotto.secagg.pairwise.group import Group
from ridotto.secagg.pairwise.opening import Opening

SID, BOOK = b"s" * 32, b"b" * 32
NAMES = ("p000", "p001", "p002")
RNG = insecure_seeded_rng(3)
SEEDS = [bytes([i]) * 32 for i in range(3)]
KEYS = [ExchangeKey.generate(RNG.child("mask", i)) for i in range(3)]
GROUP = Group(
    BOOK,
    {i: KeyEntry(i, b"e" * 32, KEYS[i].public, b"g" * 64) for i in range(3)},
    dict.fromkeys(range(3), (0, 1, 2)),
    2,
)


def shares_of(secret: bytes) -> list[bytes]:
    return share(secret, 2, [1, 2, 3], RNG.child(secret.hex()))


class Bench:
    """Hold what each member shared: by default the truth; seeds and keys may be lies of p002."""

    def __init__(
        self, seed: bytes = SEEDS[2], key: bytes = KEYS[2].to_bytes(), included: tuple[int, ...] = (0, 1)
    ) -> None:
        self.seeds = [shares_of(secret) for secret in (*SEEDS[:2], seed)]
        self.keys = [shares_of(secret) for secret in (KEYS[0].to_bytes(), KEYS[1].to_bytes(), key)]
        self.included = included

    def opening(self, corrupt: int = 0) -> Opening:
        return Opening(NAMES, corrupt, SID, GROUP, {owner: self.sealed(owner) for owner in range(3)}, self.included)

    def sealed(self, owner: int) -> SealedShares:
        commitments = b"".join(
            commit_share(SID, owner, holder, secret, values[owner][holder])
            for holder in range(3)
            for secret, values in ((Secret.SEED, self.seeds), (Secret.MASK_KEY, self.keys))
        )
        return SealedShares(SID, BOOK, commit_seed(SID, owner, SEEDS[owner]), (b"x" * 88,) * 2, commitments)

    def unmask(self, holder: int, unopened: tuple[int, ...] = ()) -> Unmask:
        shares = tuple(
            Revealed(owner, (self.seeds if owner in self.included else self.keys)[owner][holder])
            for owner in range(3)
            if owner not in unopened
        )
        return Unmask(SID, SEEDS[holder], shares, unopened)


def opened(bench: Bench, *holders: int, unopened: tuple[int, ...] = (), corrupt: int = 0) -> tuple[Mask, ...]:
    opening = bench.opening(corrupt)
    for holder in holders:
        opening.take(holder, bench.unmask(holder, unopened))
    return opening.masks()


def test_removes_self_masks_of_survivors_and_what_they_added_towards_one_that_left() -> None:
    """p002 has the larger index, so p000 and p001 added its masks, and they are to be subtracted."""
    towards = [KEYS[2].agree(KEYS[i].public, SID, MASK_LABEL, pair_info(i, 2)) for i in (0, 1)]
    expected = [Mask(SEEDS[0], -1), Mask(SEEDS[1], -1), *(Mask(seed, -1) for seed in towards)]
    assert list(opened(Bench(), 0, 1)) == expected


def test_rebuilds_the_seed_of_a_survivor_that_left_late() -> None:
    assert list(opened(Bench(included=(0, 1, 2)), 0, 1)) == [Mask(seed, -1) for seed in SEEDS]


@pytest.mark.parametrize(
    ("bench", "what"),
    [
        (Bench(seed=b"?" * 32, included=(0, 1, 2)), "seed"),
        (Bench(key=b"?" * 32), "mask key"),
    ],
)
def test_a_secret_that_is_not_the_promised_one_is_blamed_on_its_owner(bench: Bench, what: str) -> None:
    with pytest.raises(RoundFailedError, match=f"the shares that p002 handed out of its {what} do not fit") as failure:
        opened(bench, 0, 1)
    assert (failure.value.code, failure.value.blame) == ("BAD_SHARES", ("p002",))


def test_shares_of_no_secret_are_blamed_on_their_owner() -> None:
    bench = Bench(included=(0, 1, 2))
    # Limbs above 30 bits: the line through 2^31 - 2 at 1 and at 2 is 2^31 - 2 at 0.
    bench.seeds[2] = [(2**31 - 2).to_bytes(4, "little") * 9] * 3
    with pytest.raises(RoundFailedError, match="do not fit together") as failure:
        opened(bench, 0, 1)
    assert failure.value.blame == ("p002",)


@pytest.mark.parametrize(("corrupt", "code", "blame"), [(0, "BAD_SHARES", ("p002",)), (2, "TOO_FEW", ())])
def test_too_few_shares_are_blamed_only_if_an_honest_holder_complains(
    corrupt: int, code: str, blame: tuple[str, ...]
) -> None:
    """Two complaints: with two corrupt members both may be lies, with none p002 sealed nonsense."""
    with pytest.raises(RoundFailedError, match="0 shares of p002's mask key, 2 are needed; 2 could not") as failure:
        opened(Bench(), 0, 1, unopened=(2,), corrupt=corrupt)
    assert (failure.value.code, failure.value.blame) == (code, blame)


@pytest.mark.parametrize("spoil", ["less", "twice", "both", "stranger"])
def test_each_owner_is_there_exactly_once(spoil: str) -> None:
    bench = Bench()
    shares = bench.unmask(0).shares
    lists = {
        "less": (shares[:2], ()),
        "twice": ((*shares, shares[0]), ()),
        "both": (shares, (2,)),
        "stranger": (shares, (7,)),
    }
    with pytest.raises(PeerProtocolError, match="p000: it does not reveal exactly one share per member"):
        bench.opening().take(0, Unmask(SID, SEEDS[0], *lists[spoil]))


def test_a_refused_unmask_leaves_nothing_behind() -> None:
    """The seed is right and the shares are forged: not even the seed counts."""
    bench = Bench()
    opening = bench.opening()
    forged = tuple(Revealed(revealed.owner, bytes(36)) for revealed in bench.unmask(0).shares)
    with pytest.raises(PeerProtocolError, match="p000: its share of p000's seed is forged"):
        opening.take(0, Unmask(SID, SEEDS[0], forged, ()))
    opening.take(1, bench.unmask(1))
    with pytest.raises(RoundFailedError, match="1 shares of p000's seed, 2 are needed"):
        opening.masks()
