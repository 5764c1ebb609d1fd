"""`ridotto status`: what a coordinator tells about its federation."""

from __future__ import annotations

from typing import Annotated

import typer

from ridotto.cli.options import Ca, Certificate, CertificateKey, Debug, Json, Url, certificate_pair


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
    facts = {
        "federation": info.name,
        "state": info.state + (f": {info.reason}" if info.reason else ""),
        "round": f"{info.round} of {info.rounds}, attempt {info.attempt}",
        "participants": f"{info.participants} enrolled, {info.present} present",
        "model": f"{info.parameters} parameters, {info.model[:16]}  (SHA-256)",
        "protection": info.protection,
        "coordinator": info.coordinator,
    }
    console = person()
    console.print(pairs("", facts))
    if records:
        rows = [
            (
                str(record.round),
                str(record.participants),
                ", ".join(record.lost) or "-",
                "  ".join(f"{name} {value:.4f}" for name, value in record.metrics.items()) or "-",
            )
            for record in records
        ]
        console.print(table("", ("round", "participants", "lost", "metrics"), rows))
