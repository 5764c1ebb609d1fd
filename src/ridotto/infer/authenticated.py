"""Queries that notice a party that deviates: tags of all that was opened are checked before anything leaves.

Security mode "malicious". One of the two parties may do whatever it likes; the dealer is honest. A model's weights and
a query's input come *sealed*: the client draws a seed, gives it to the dealer, and tells both parties the same words
W + r_W, b + r_b, x + r_x with masks r from the seed. So all that parties have shares of was dealt, and has tags, see
`macs`. The output is opened under a mask of the same seed, which only the client can take off.

    [1]  the steps of the program, as in semi-honest queries, and the opening of output + r: both parties keep what
         they sent and received
    [2]  local: the same steps on tags: a share of the tag of everything that was opened
    [3]  round: upper halves of the shares of all opened words, so that the lifted words Y are public
    [4]  local: z = [alpha Y] - Y [alpha] for words, [tag] XOR bit [delta] for bits: parties' z must cancel
    [5]  round: commitments SHA-256(role, nonce, z, sealed words); nonces are this party's, of its material
    [6]  round: nonces. Each party computes the other's commitment from its own z
    [7]  the masked output goes to the client, from both parties, who must say the same

Soundness: a party that opens a word or bit wrong in [1] passes [6] with probability at most 2^-64, plus that of
breaking SHA-256 as a commitment. Upper halves that are wrong in [3] matter to nobody: some pass, and change nothing.
Nothing depends on secrets: openings are masked by fresh uniform masks whatever was opened before, and whether [6] fails
depends on deviation and keys alone. So an abort tells nothing of inputs or model (no selective failure). After one, the
model and its keys are forgotten: a nonce that was told would let 2^64 hashes find a key.
Source: the check of Cramer et al., "SPDZ2k", CRYPTO 2018. We differ in comparing all tags and not a combination of
them, and in sending the upper halves of openings later, in [3], so that 128-bit arithmetic happens after the query.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import PeerProtocolError
from ridotto.infer.graph import Architecture
from ridotto.infer.kernels.plain import Words, constant_plane
from ridotto.infer.kernels.tagged import RING, parts
from ridotto.infer.macs import Keys, Replayed, TagDealing, Tagger, TagMaterial
from ridotto.infer.model import slots
from ridotto.infer.program import Program
from ridotto.infer.streams import Stream
from ridotto.infer.wires import LayerShares, Masks, ModelShares, Prepared


class TagMismatchError(PeerProtocolError):
    """What a party opened does not fit its tags."""


DOMAIN = b"ridotto/1 infer tags\x00"
NONCE_WORDS = 4


@dataclass(frozen=True, repr=False)
class SealedModel:
    """Hold one party's side of a sealed model. shares, tags: of the parameters. digest: of the sealed row."""

    tagger: Tagger
    shares: ModelShares
    tags: ModelShares
    digest: bytes


@dataclass(repr=False)
class SealedSession:
    """Hold one party's material of a query: each part is taken once."""

    prepared: list[Prepared]
    tags: list[Prepared]
    nonce: Words


@dataclass(repr=False)
class Opened:
    """Stand for the peer's message where steps run on tags: added to tags, it gives what was opened, and keeps both."""

    mine: Words
    theirs: Words
    claims: list[tuple[NDArray[Any], Words, Words]] = field(default_factory=list)
    bits: list[tuple[Words, Words]] = field(default_factory=list)
    __array_ufunc__ = None

    def __radd__(self, tags: NDArray[Any]) -> Words:
        self.claims.append((tags, self.mine, self.theirs))
        return self.mine + self.theirs

    def __rxor__(self, tags: Words) -> Words:
        self.bits.append((tags, self.mine ^ self.theirs))
        return self.mine ^ self.theirs


def seal_row(row: Words, seed: bytes, model: bytes) -> Words:
    """Owner: return the parameters as both parties get them. row: of `encode_parameters`. seed: also the dealer's."""
    return row + Stream(seed, model, "sealed").words(row.size)


def deal_model(dealing: TagDealing, architecture: Architecture) -> tuple[Keys, dict[str, Words]]:
    """Dealer: draw keys, share the masks of a sealed row; return the keys and the masks of the weights."""
    keys = dealing.keys
    rows = dealing.sealed(sum(slot.size for slot in slots(architecture)))
    masks, place = {}, 0
    for slot in slots(architecture):
        masks[slot.name] = rows[place : place + slot.weight_size].reshape(slot.weight)
        place += slot.size
    return keys, masks


def load_sealed(material: TagMaterial, architecture: Architecture, row: Words) -> SealedModel:
    """Party: read the masks of a sealed row: W = (W + r) - r, so that each share of W comes from the dealer."""
    tagger = material.tagger()
    masks = material.share(row.size)
    tags = Replayed(material, tagger).random(row.size)
    public = row if material.first else np.zeros_like(row)
    plain, tagged = public - masks, tagger.constant(row) - tags
    material.close()
    shares: tuple[dict[str, LayerShares], dict[str, LayerShares]] = ({}, {})
    place = 0
    for slot in slots(architecture):
        middle, end = place + slot.weight_size, place + slot.size
        opened = row[place:middle].reshape(slot.weight)
        for kept, values in zip(shares, (plain, tagged), strict=True):
            weight = values[place:middle].reshape(slot.weight)
            kept[slot.name] = LayerShares(weight, opened, values[middle:end])
        place = end
    return SealedModel(tagger, shares[0], shares[1], hashlib.sha256(row.astype("<u8").tobytes()).digest())


def prepare(material: TagMaterial, program: Program, model: SealedModel) -> SealedSession:
    """Party, offline: read the material of one query, and do the work on shares and on tags that needs no input.

    Raises PeerProtocolError, naming the dealer, if it is not of exactly the right size.
    """
    nonce = material.words(NONCE_WORDS)
    prepared = program.prepare(material, model.shares)
    tags = program.prepare(Replayed(material, model.tagger), model.tags)  # type: ignore[arg-type]
    return SealedSession(prepared, tags, nonce)


def deal(dealing: TagDealing, program: Program, masks: Masks) -> None:
    """Dealer: write the material of one query."""
    dealing.own(NONCE_WORDS)
    program.deal(dealing, masks)


def run(
    program: Program, model: SealedModel, session: SealedSession, sealed: Words, peer: str
) -> Generator[Words, Words, Words]:
    """Party: [1] to [6]; return the masked output. sealed: x + r_x. Uses `session` up.

    Raises TagMismatchError, naming the peer, if what it opened does not fit its tags.
    """
    first = model.tagger.first
    seen: list[tuple[Words, Words]] = []
    output = yield from _watched(program.run(first, session.prepared, sealed), seen)
    claims = _replay(program.run(model.tagger, session.tags, sealed), seen)
    # [3]
    lifted = [parts(tags) for tags, _, _ in claims.claims]
    upper = np.array([value >> 64 for values, _ in lifted for value in values], np.uint64)
    theirs = yield upper
    # [4]
    checks = b"".join(_checks(claims, lifted, theirs, model.tagger))
    context = DOMAIN + model.digest + hashlib.sha256(sealed.astype("<u8").tobytes()).digest() + checks
    # [5] and [6]
    promise = yield _commitment(first, session.nonce, context)
    nonce = yield session.nonce
    if not np.array_equal(promise, _commitment(not first, nonce, context)):
        raise TagMismatchError(peer, "what it opened does not fit its tags, or it has another input or model")
    return output


def _watched(half: Any, seen: list[tuple[Words, Words]]) -> Generator[Words, Words, Words]:
    """Run a half, and keep what was sent and received."""
    received: Words | None = None
    while True:
        try:
            mine = half.send(received)
        except StopIteration as stop:
            output: Words = stop.value
            return output
        received = yield mine
        seen.append((mine.copy(), received))


def _replay(half: Any, seen: list[tuple[Words, Words]]) -> Opened:
    """[2]: run a half on tags, against what was seen; return all that was opened, with tags."""
    claims = Opened(np.empty(0, np.uint64), np.empty(0, np.uint64))
    message: Opened | None = None
    for mine, theirs in seen:
        half.send(message)
        message = Opened(mine, theirs, claims.claims, claims.bits)
    try:
        half.send(message)
    except StopIteration:
        return claims
    raise AssertionError("steps on tags have the rounds of steps on shares")


def _checks(claims: Opened, lifted: list[tuple[list[int], list[int]]], theirs: Words, tagger: Tagger) -> list[bytes]:
    """[4]: return z of all that was opened, so that both parties' are equal: party 1 takes -z."""
    sign, place, found = 1 if tagger.first else -1, 0, []
    for (_, _, low), (values, macs) in zip(claims.claims, lifted, strict=True):
        upper = theirs[place : place + low.size].tolist()
        place += low.size
        for value, mac, other, high in zip(values, macs, low.reshape(-1).tolist(), upper, strict=True):
            opened = value + other + (high << 64) & RING
            found.append((sign * (mac - opened * tagger.alpha) & RING).to_bytes(16, "little"))
    for tags, plane in claims.bits:
        found.append((tags ^ constant_plane(tagger, plane)).astype("<u8").tobytes())
    return found


def _commitment(first: bool, nonce: Words, context: bytes) -> Words:
    role = b"\x00" if first else b"\x01"
    digest = hashlib.sha256(role + nonce.astype("<u8").tobytes() + context).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)
