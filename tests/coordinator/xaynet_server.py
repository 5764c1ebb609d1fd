"""A coordinator for xaynet's clients, in a process of its own: prints its URL, then a line of JSON for each round.

`python xaynet_server.py PORT [CONFIGURATION]`: four bytes in hex, as messages have them.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.coordinator.serve import ServerSettings
from ridotto.coordinator.xaynet_serve import serve_xaynet
from ridotto.errors import RidottoError
from ridotto.secagg.xaynet.config import MaskConfig, MaskConfigPair
from ridotto.secagg.xaynet.machine import RoundDone, RoundFailed
from ridotto.secagg.xaynet.settings import PhaseLimits, XaynetSettings

CONFIG = MaskConfig.from_bytes(bytes.fromhex(sys.argv[2]), "caller") if len(sys.argv) > 2 else MaskConfig()

SETTINGS = XaynetSettings(
    length=16,
    configs=MaskConfigPair(CONFIG, CONFIG),
    sum_chance=0.35,
    update_chance=1.0,
    sum=PhaseLimits(least=1, most=8, min_s=0.8, max_s=4),
    update=PhaseLimits(least=3, most=100, min_s=1.2, max_s=8),
    sum2=PhaseLimits(least=1, most=8, min_s=4, max_s=8),
)


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def on_round(done: RoundDone, mean: NDArray[np.float32]) -> None:
    exact = [str(weight) for weight in done.mean.to_fractions()]
    parties = {"updaters": done.updaters, "summers": done.summers, "dissenters": done.dissenters}
    say({"mean": exact, "rounded": mean.tolist(), "scalars": str(done.mean.scalars), **parties})


def on_failure(failed: RoundFailed) -> None:
    say({"failed": str(failed.error)})


def main() -> int:
    server = ServerSettings(port=int(sys.argv[1]))
    try:
        serve_xaynet(
            SETTINGS,
            server,
            on_round=on_round,
            on_failure=on_failure,
            rounds=2,
            ready=lambda url: print(url, flush=True),
        )
    except RidottoError as error:
        print(error, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
