"""Leave the vectors of xaynet out where its extra is not installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("nacl") else ["test_xaynet_plainly.py", "test_xaynet_round_plainly.py"]
