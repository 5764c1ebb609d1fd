"""Read closed rounds, and say what can be proved about them. Changes nothing.

audit.py       check a receipt offline, and say in words what it proves and what it does not
committees.py  check what a committee signed about one set

Receipts themselves and proofs of inclusion are made in `ridotto.rounds` (`receipt`, `inclusion`), see
docs/decisions/0005-receipts.md.
"""
