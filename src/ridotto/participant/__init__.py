"""Take part in a federation: the driver on the data holder's side, with its client, state file and policy file."""
