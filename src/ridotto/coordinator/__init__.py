"""The coordinator: a driver that runs rounds over HTTP and survives being killed at any moment.

app         HTTP: who asks, how much may be sent, what is answered
federation  one writer: batches what comes in, decides when a round starts, tells whoever waits
conductor   one batch at a time: machine, sums, commit; loads and replays after a restart
attempt     the machine of one attempt with its outboxes: a function of the log
progress    how far a federation is, and what the end of an attempt or a restart makes of it
privacy     what its attempts cost, charged before anybody is asked
store       names, log, records: small things, in one transaction
blobs, sums models and running sums: large things, in files
receipts    what a receipt needs, while an attempt runs and when it has ended
closed      records, receipts and proofs of attempts that ended
"""
