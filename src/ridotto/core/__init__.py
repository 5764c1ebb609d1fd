"""Vectors, fixed point, wire, randomness, machines: no I/O and no frameworks."""
