"""Masks, secret shares, seals and identities: the only package that imports `cryptography`."""
