"""`ridotto audit`: check a receipt offline, and say in words what it proves and what it does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ridotto.cli.options import Debug, Json

STANDARD_INPUT = "-"


def audit(
    receipt: Annotated[str, typer.Argument(metavar="RECEIPT", help='A receipt; "-" reads it from standard input.')],
    coordinator: Annotated[
        str | None, typer.Option(metavar="KEY", help="The identity key that should have signed it.")
    ] = None,
    proof: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A participant's own proof; may be given more than once."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a round's receipt, offline: everything in it holds, or the command fails and names what does not.

    It prints what the receipt proves first, then what it does not.
    """
    from ridotto.cli.screen import line, machine, person, printable
    from ridotto.rounds.inclusion import LARGEST_CONTRIBUTED, decode_contributed
    from ridotto.rounds.receipt import LARGEST_RECEIPT
    from ridotto.trust.audit import audit as check

    key = _key(coordinator)
    own = [decode_contributed(_read(str(path), LARGEST_CONTRIBUTED)) for path in proof or ()]
    said = [printable(sentence) for sentence in check(_read(receipt, LARGEST_RECEIPT), key, own)]
    if json:
        machine("audit", receipt=receipt, sentences=said)
        return
    console = person()
    for sentence in said:
        line(console, sentence)


def _read(name: str, limit_bytes: int) -> bytes:
    """Read a file, and one byte more than it may have at most: whoever decodes it refuses that."""
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read(limit_bytes + 1)
    with Path(name).open("rb") as file:
        return file.read(limit_bytes + 1)


def _key(text: str | None) -> bytes | None:
    from ridotto.errors import ConfigError

    if text is None:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32 or len(text) != 64:
        raise ConfigError(f"--coordinator is an identity key of 64 hex digits, not {text!r}")
    return key
