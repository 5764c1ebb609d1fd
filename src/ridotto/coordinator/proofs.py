"""Proofs against members of committees, as files: what they signed twice and should have signed once.

A file is JSON with everything in hexadecimal. Signed is "ridotto/1 committee set" 00 || context || book || root for
acknowledgements, and "ridotto/1 committee release" 00 || context || book || root || digest for releases
(docs/protocols/committee.md), with the identity key that the session names for the member. Files are never deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from ridotto.coordinator.blobs import PROOFS, Blobs
from ridotto.core.wire import digest
from ridotto.secagg.committee.coordinator import Disagreement
from ridotto.secagg.committee.messages import MaskSum
from ridotto.secagg.committee_roles.agreement import Equivocation
from ridotto.secagg.committee_roles.messages import Ack


def write_proofs(blobs: Blobs, published: Iterable[object]) -> None:
    """Write what a session's machine has published that proves somebody's lie; the same proof, the same file."""
    for item in published:
        match item:
            case Equivocation(member, context, book, first, second):
                said = [_acknowledged(member, ack) for ack in (first, second)]
            case Disagreement(context, book, _, first, second):
                said = [_released(member, masks) for member, masks in (first, second)]
            case _:
                continue
        proof = {"kind": type(item).__name__, "context": context.hex(), "book": book.hex(), "signed": said}
        data = json.dumps(proof, indent=1).encode()
        blobs.write(f"{PROOFS}/{digest(data).hex()}.json", data)


def _acknowledged(member: str, ack: Ack) -> dict[str, str]:
    return {"member": member, "sid": ack.sid.hex(), "root": ack.root.hex(), "signature": ack.signature.hex()}


def _released(member: str, masks: MaskSum) -> dict[str, str]:
    fields = {"sid": masks.sid, "root": masks.root, "digest": masks.digest, "signature": masks.signature}
    return {"member": member, **{name: value.hex() for name, value in fields.items()}}
