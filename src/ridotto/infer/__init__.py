"""Encrypted inference: classify hidden data with a hidden model, between two parties and a dealer."""
