"""`ridotto status`: what a coordinator tells about its federation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ridotto.cli.options import Ca, Certificate, CertificateKey, Debug, Json, Url, certificate_pair

if TYPE_CHECKING:
    from ridotto.rounds.record import RoundRecord
    from ridotto.rounds.service import FederationInfo


def status(
    url: Url,
    rounds: Annotated[int, typer.Option(min=0, help="How many of the last rounds to show.")] = 5,
    ca: Ca = None,
    certificate: Certificate = None,
    key: CertificateKey = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a federation trains, by which plan, how far it is and how its last rounds ended."""
    from ridotto.cli.screen import machine, pairs, person, table
    from ridotto.core.rng import OsRng
    from ridotto.crypto.seal import IdentityKey
    from ridotto.participant.client import Client

    pair = certificate_pair(certificate, key)
    # Nothing here is signed by us, but a client has an identity.
    with Client(url, IdentityKey.generate(OsRng()), ca=ca, certificate=pair, patience_s=0) as client:
        info = client.federation()
        last = info.round if info.state == "done" else info.round - 1
        signed = [client.record(number) for number in range(max(1, last - rounds + 1), last + 1)]
    for each in signed:
        each.check(bytes.fromhex(info.coordinator))
    records = [each.record for each in signed]
    if json:
        import msgspec

        machine("federation", **msgspec.to_builtins(info))
        for record in records:
            machine("record", **msgspec.to_builtins(record))
        return
    console = person()
    console.print(pairs("", _facts(info)))
    if records:
        columns = _columns(records)
        rows = [[column(record) for column in columns.values()] for record in records]
        console.print(table("", tuple(columns), rows))


def _facts(info: FederationInfo) -> dict[str, str]:
    from ridotto.cli.screen import printable

    return {
        "federation": info.name,
        "state": info.state + (f": {info.reason}" if info.reason else ""),
        "round": f"{info.round} of {info.rounds}, attempt {info.attempt}",
        "participants": f"{info.participants} enrolled, {info.present} present",
        **({} if not info.plan.helpers else {"helpers": f"{info.helpers_present} of {info.plan.most_helpers} present"}),
        "model": f"{info.parameters} parameters, {info.model[:16]}  (SHA-256)",
        "protection": printable(info.protection),
        **({} if info.privacy is None else {"privacy": printable(info.privacy)}),
        "coordinator": info.coordinator,
    }


def _columns(records: Sequence[RoundRecord]) -> dict[str, Callable[[RoundRecord], str]]:
    """Return what is shown of rounds: columns that have nothing in any of them are left out."""
    from ridotto.cli.screen import epsilon, rest

    columns: dict[str, Callable[[RoundRecord], str]] = {
        "round": lambda record: str(record.round),
        "participants": lambda record: str(record.participants),
        "lost": lambda record: ", ".join(record.lost) or "-",
        "metrics": lambda record: "  ".join(f"{name} {value:.4f}" for name, value in record.metrics.items()) or "-",
    }
    if any(record.clipped is not None for record in records):
        columns["clipped"] = lambda record: "-" if record.clipped is None else f"{record.clipped:.0f}"
    if any(record.excluded for record in records):
        columns["excluded"] = lambda record: ", ".join(record.excluded) or "-"
    if any(record.privacy is not None for record in records):
        columns["epsilon"] = lambda record: "-" if record.privacy is None else epsilon(record.privacy.epsilon)
        columns["left"] = lambda record: "-" if record.privacy is None else rest(record.privacy.left)
    return columns
