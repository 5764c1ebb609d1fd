"""Leave these tests out where the extra `xaynet` is not installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("nacl") else ["test_*.py"]
