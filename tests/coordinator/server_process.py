"""A coordinator process for tests: `python server_process.py FOLDER PORT [CERTIFICATE KEY [CLIENT_CA]]`.

A file `plan` in the folder holds another plan than the usual one, as `Plan.encode` gives it.
Prints its URL once it listens, and the reason and an exit code if it can't.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from ridotto.coordinator.folder import CoordinatorFolder
from ridotto.coordinator.serve import ServerSettings, serve
from ridotto.errors import RidottoError
from ridotto.rounds.plan import Plan
from tests.coordinator.bench import LAYOUT, MODEL, make_settings


def main() -> int:
    folder, port, *certificates = sys.argv[1:]
    files = dict(zip(("certificate", "key", "client_ca"), map(Path, certificates), strict=False))
    try:
        with CoordinatorFolder(Path(folder)) as opened:
            own = Path(folder) / "plan"
            plan = msgspec.msgpack.decode(own.read_bytes(), type=Plan) if own.exists() else None
            federation = opened.federation(make_settings(plan), LAYOUT, MODEL)
            serve(federation, ServerSettings(port=int(port), **files), ready=lambda url: print(url, flush=True))
    except RidottoError as error:
        print(error, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
