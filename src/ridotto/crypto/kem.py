"""Encapsulate keys under ML-KEM-768, which is made to withstand a quantum computer.

Never alone: `ExchangeKey.agree` takes what is encapsulated here as a second secret, so that a key stays secret while
X25519 or ML-KEM does. See docs/decisions/0007-hybrid-seals.md.

The library draws the randomness of an encapsulation itself and takes none from outside, so `encapsulate` is the one
thing in `crypto` that gives other bytes each time, and none for a machine: a driver calls it and keeps what it gave.

Source: NIST FIPS 203, "Module-Lattice-Based Key-Encapsulation Mechanism Standard", 2024.
"""

from __future__ import annotations

from functools import lru_cache
from typing import final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from ridotto.core.rng import Rng
from ridotto.crypto.seal import KeyExchangeError
from ridotto.errors import ConfigError, LocalProtocolError

KEM_PRIVATE_BYTES = 64
KEM_PUBLIC_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088
KEM_SECRET_BYTES = 32

MISSING = (
    "ML-KEM-768 is needed here, and the cryptography that is installed was built against an OpenSSL without it (3.5 is "
    "the first that has it); its wheels have it: "
    "pip install --force-reinstall --only-binary cryptography 'cryptography>=50'"
)


@final
class DecapsulationKey:
    """Open what others encapsulate for a public key: an ML-KEM-768 key pair, for one session.

    private: 64 bytes, d || z of FIPS 203. Raises LocalProtocolError if it has another length, ConfigError as
    `require_kem`.
    """

    __slots__ = ("_key", "public")

    public: bytes
    """The encapsulation key, 1,184 bytes."""

    def __init__(self, private: bytes) -> None:
        if len(private) != KEM_PRIVATE_BYTES:
            raise LocalProtocolError(f"a private ML-KEM key has {KEM_PRIVATE_BYTES} bytes, not {len(private)}")
        try:
            self._key = MLKEM768PrivateKey.from_seed_bytes(private)
        except UnsupportedAlgorithm as error:
            raise ConfigError(MISSING) from error
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"DecapsulationKey({self.public.hex()[:8]}...)"

    @classmethod
    def generate(cls, rng: Rng) -> DecapsulationKey:
        """Make a new key pair from 64 bytes of `rng`, which must be secret."""
        return cls(rng.bytes(KEM_PRIVATE_BYTES))

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the secret of 32 bytes in a ciphertext.

        A ciphertext that was changed, or made for another key, gives a secret that nobody else knows: "implicit
        rejection". That it is the wrong one shows when something does not open under it.
        Raises KeyExchangeError if it has not 1,088 bytes.
        """
        try:
            return self._key.decapsulate(bytes(ciphertext))
        except ValueError as error:
            raise KeyExchangeError(f"{len(ciphertext)} bytes are no ML-KEM-768 ciphertext") from error


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Return a fresh secret of 32 bytes, and the ciphertext of 1,088 bytes that carries it to the owner of `public`.

    Drawn by the library, from the operating system: never the same twice.
    Raises as `check_encapsulation_key`.
    """
    return _parse(bytes(public)).encapsulate()


def check_encapsulation_key(public: bytes) -> None:
    """Return if something can be encapsulated for this key: 1,184 bytes, reduced (FIPS 203, section 7.2).

    Raises KeyExchangeError if not, ConfigError as `require_kem`.
    """
    _parse(bytes(public))


def require_kem() -> None:
    """Return if the installed library has ML-KEM-768. Raises ConfigError, which says what to install, if not."""
    DecapsulationKey(bytes(KEM_PRIVATE_BYTES))


def forget_keys() -> None:
    """Parse every public key anew from here on: for whoever measures what that costs."""
    _parse.cache_clear()


# Each key of a book is parsed to be checked and again to be used; in a simulation, by every participant. Public keys
# only, of about 3 kB each; the bound keeps an attacker who shows many keys from filling the memory.
@lru_cache(maxsize=1024)
def _parse(public: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(public)
    except UnsupportedAlgorithm as error:
        raise ConfigError(MISSING) from error
    except ValueError as error:
        raise KeyExchangeError(f"public key {public[:4].hex()}... is none of ML-KEM-768") from error
