"""What a round is: its plan, its pipeline, its two machines, its record."""
