"""What protocols with a committee have in common: who is on it, its keys, and how it agrees on one set.

In reading order:

    roster.py       the members of a committee, and how many must agree
    choice.py       choose them from a pool by a beacon, so that nobody can pick
    keys.py         their fresh, signed keys, and the book of them that everybody checks
    merkle.py       one root for a set, and proofs that something is in it
    agreement.py    acknowledge one root per session, and count acknowledgements
    complaints.py   what to do about parcels that don't open
    messages.py     what members and coordinator say
    seals.py        what keys of parcels are derived from: X25519, or ML-KEM-768 as well
    setup.py        what the machines need to know of a session
    binding.py      what seals for members say
    participant.py  a participant: it answers the book with one message
    member.py       a member: it opens parcels, signs one set and releases once
    steps.py        the coordinator's book of who was asked for what and has answered
    coordinator.py  the coordinator: one kind of message after another
    tasks.py        what machines ask their drivers to do
    keeper.py       what a driver keeps until a set is final
    evidence.py     what it publishes: faults, and what proves which set was opened

A committee works on one session and then forgets its keys. Its members speak three times after their keys: which
parcels don't open (`Checked`), which set they have before them (`Ack`, signed, once), and what they release, once, and
only after enough others have acknowledged the same set.
"""
