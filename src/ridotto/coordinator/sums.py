"""Running sums and the round's total, in files, with only the one being folded in memory.

A round of 1,000 participants has eight sessions or more, and so as many sums; memory holds one of them. Changed sums
are written under new names before the names are committed, and the files of the old names go only after that. So a
kill leaves either the old sums and the old log or the new ones, never a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

import numpy as np

from ridotto.coordinator.blobs import Blobs, sum_name
from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import Buffer
from ridotto.core.wire import digest


class StoredSums(MutableMapping[bytes, IntVector]):
    """Map sid -> running sum for a `Vault`, and `TOTAL` -> the round's total.

    names: sid -> blob, as last committed. dtype: of the sums. An array that was handed out may be changed in place
    until another sid is asked for, and counts only once it was set again.
    """

    def __init__(self, blobs: Blobs, names: Mapping[bytes, str], dtype: np.dtype[np.unsignedinteger]) -> None:
        self._blobs = blobs
        self._dtype = dtype.newbyteorder("<")
        self._committed = dict(names)
        self._staged: dict[bytes, str | None] = {}
        self._written: set[str] = set()
        self._held: tuple[bytes, IntVector] | None = None
        self._dirty = False

    def __getitem__(self, sid: bytes) -> IntVector:
        if self._held is not None and self._held[0] == sid:
            return self._held[1]
        name = self._name(sid)
        if name is None:
            raise KeyError(sid)
        self._put_away()
        data = self._blobs.read(name, bytes.fromhex(name.rpartition(".")[2]))
        self._held = (sid, np.frombuffer(data, self._dtype).astype(self._dtype.newbyteorder("="), copy=False))
        return self._held[1]

    def __setitem__(self, sid: bytes, total: IntVector) -> None:
        if self._held is None or self._held[0] != sid:
            self._put_away()
        self._held, self._dirty = (sid, total), True

    def __delitem__(self, sid: bytes) -> None:
        if sid not in self:
            raise KeyError(sid)
        if self._held is not None and self._held[0] == sid:
            self._held, self._dirty = None, False
        self._staged[sid] = None

    def __iter__(self) -> Iterator[bytes]:
        held = [self._held[0]] if self._held is not None else []
        return iter([sid for sid in {**self._committed, **self._staged, **dict.fromkeys(held)} if sid in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, sid: object) -> bool:
        if self._held is not None and self._held[0] == sid:
            return True
        return isinstance(sid, bytes) and self._name(sid) is not None

    def clear(self) -> None:
        """Forget every sum without reading one."""
        self._staged = dict.fromkeys([*self._committed, *self._staged])
        self._held, self._dirty = None, False

    def changes(self) -> dict[bytes, str | None]:
        """Write what changed and return the names to be committed: sid -> blob, None for a sum that is gone."""
        self._put_away(keep=True)
        return dict(self._staged)

    def settle(self) -> None:
        """Take note that the changes were committed, and delete the files they replaced."""
        before = set(self._committed.values())
        self._committed.update({sid: name for sid, name in self._staged.items() if name is not None})
        for sid, name in self._staged.items():
            if name is None:
                self._committed.pop(sid, None)
        self._blobs.delete((before | self._written) - set(self._committed.values()))
        self._staged, self._written = {}, set()

    def _name(self, sid: bytes) -> str | None:
        return self._staged[sid] if sid in self._staged else self._committed.get(sid)

    def _put_away(self, keep: bool = False) -> None:
        """Write the held sum if it changed; keep it in memory if the next one may be the same."""
        if self._held is not None and self._dirty:
            sid, total = self._held
            data: Buffer = np.ascontiguousarray(total, self._dtype).view(np.uint8).data
            name = sum_name(sid, digest(data))
            if name != self._name(sid):
                self._blobs.write(name, data)
                self._written.add(name)
            self._staged[sid] = name
            self._dirty = False
        if not keep:
            self._held = None
