"""Read closed rounds, and say what can be proved about them. Changes nothing.

receipt.py     a round's receipt: what it commits to, made by the coordinator
audit.py       check a receipt offline, and say in words what it proves and what it does not
inclusion.py   prove to a participant that its contribution was in a set, without telling who else was
"""
