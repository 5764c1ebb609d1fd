"""Secure sums: protocols that add up vectors of integers without showing one of them."""
