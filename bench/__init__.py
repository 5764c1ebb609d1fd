"""Benchmarks: every number beside its floor, measured in the same run. `python -m bench --help`; see README.md."""
