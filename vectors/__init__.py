"""Test vectors for other implementations: see README.md. `python -m vectors.make` writes them anew."""
