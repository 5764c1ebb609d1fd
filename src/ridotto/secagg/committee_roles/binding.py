"""What seals for members say, byte by byte, whatever is sealed."""

from __future__ import annotations

from ridotto.secagg.binding import number

PARCEL_KEY_BYTES = 16


def parcel_info(book: bytes, participant: int, seat: int) -> bytes:
    """Name who seals for whom: part of the derivation of the parcel's key."""
    return book + number(participant) + number(seat)
