"""Many participants in one process, in virtual time."""
