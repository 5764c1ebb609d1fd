"""Settings for every test: how hypothesis looks for examples.

default   no deadline and no complaint about slow drawing (shared machines stall), new examples in every run
ci        the same examples in every run, so that a red build is red for whoever looks into it
fuzz      many more examples; `make fuzz` asks for it
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow]

settings.register_profile("default", deadline=None, suppress_health_check=SLOW)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=SLOW)
settings.register_profile(
    "fuzz", deadline=None, max_examples=20_000, suppress_health_check=[*SLOW, HealthCheck.data_too_large]
)
settings.load_profile("ci" if os.environ.get("CI") else "default")
