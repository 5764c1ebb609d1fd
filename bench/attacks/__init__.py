"""What attacks reach, and what a defence leaves of them: `python -m bench.attacks --help`; see docs/attacks.md."""
