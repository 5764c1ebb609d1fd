"""How numbers stand in the files: above 2^53 as decimal digits, because not every reader of JSON keeps them."""

from __future__ import annotations

from collections.abc import Iterable

EXACT_BITS = 53


def decimal(values: Iterable[int], bits: int) -> list[int] | list[str]:
    """Return numbers of `bits` bits as they stand in the files: strings where these are more than 53."""
    numbers = [int(value) for value in values]
    return numbers if bits <= EXACT_BITS else [str(number) for number in numbers]
