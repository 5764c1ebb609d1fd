"""Where a round's time goes: every costly function of the package counts its own CPU time while a round runs.

A function is wrapped wherever a module of the package holds it under a name; what it calls that is wrapped as well is
counted there and not twice. A wrapper costs about 1 us, less than 1 % of any round of the table.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ridotto.core import packing, wire
from ridotto.crypto import prg, seal, shamir
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.vault import Vault
from ridotto.secagg import binding
from ridotto.secagg.pairwise import group

FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "masks": (prg.add_masks,),
    "encode": (prg.dither,),
    "signatures": (seal.verify,),
    "seal": (seal.seal, seal.open_sealed),
    "shamir": (shamir.share, shamir.reconstruct, shamir.reconstruct_many),
    "commitments": (binding.commit_share, binding.commit_seed),
    "hash of vectors": (wire.digest,),
    "pack, fold": (packing.pack, packing.unpack),
    "key book, graph": (group.form_group,),
}
METHODS: dict[str, tuple[tuple[type, str], ...]] = {
    "key agreement": ((seal.ExchangeKey, "agree"), (seal.ExchangeKey, "__init__")),
    "signatures": ((seal.IdentityKey, "sign"),),
    "encode": ((Pipeline, "encode"),),
    "pack, fold": ((Vault, "fold"),),
    "apply": ((Vault, "apply"),),
    "wire": ((wire.Codec, "header"), (wire.Codec, "encode"), (wire.Codec, "decode")),
}


class Parts:
    """Own CPU seconds of each part; `masks` counts the masks that were expanded."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.masks = 0
        self._inner = [0.0]

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        clock, inner, seconds, calls = time.process_time, self._inner, self.seconds, self.calls

        def counted(*args: Any, **kwargs: Any) -> Any:
            inner.append(0.0)
            begin = clock()
            try:
                return function(*args, **kwargs)
            finally:
                taken = clock() - begin
                seconds[part] += taken - inner.pop()
                calls[part] += 1
                inner[-1] += taken

        return counted

    def _count_masks(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(total: Any, masks: Any, sid: bytes, *args: Any, **kwargs: Any) -> Any:
            self.masks += len(masks)
            return function(total, masks, sid, *args, **kwargs)

        return counted

    @contextmanager
    def watching(self) -> Iterator[Parts]:
        """Wrap everything; put it back at the end."""
        undo: list[tuple[Any, str, Any]] = []
        for part, functions in FUNCTIONS.items():
            for function in functions:
                counted = self.wrap(part, function)
                # The dither is expanded by the same function, inside the module that defines it: no mask.
                wrapper = self._count_masks(counted) if function is prg.add_masks else counted
                undo += _replace(function, wrapper)
        for part, methods in METHODS.items():
            for owner, name in methods:
                undo.append((owner, name, getattr(owner, name)))
                setattr(owner, name, self.wrap(part, getattr(owner, name)))
        try:
            yield self
        finally:
            for owner, name, original in reversed(undo):
                setattr(owner, name, original)


def _replace(function: Any, wrapper: Any) -> list[tuple[Any, str, Any]]:
    """Put `wrapper` in the place of `function` in every module that imported it."""
    undo = []
    for module in [module for name, module in sys.modules.items() if name.startswith("ridotto.")]:
        if module.__name__ == function.__module__:
            continue
        for name in [name for name, value in vars(module).items() if value is function]:
            undo.append((module, name, function))
            setattr(module, name, wrapper)
    return undo
