"""Local training, on the participant's side, and server optimisers, on the other."""
