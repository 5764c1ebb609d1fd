"""Encrypt vectors so that ciphertexts and keys both add up: ring-LWE with shared keys.

In reading order:

parameters.py      the ring, its two primes, the widths of the noise, and where each number comes from
ntt.py             the number-theoretic transform in NumPy: the reference, and the road without numba
kernels.py         the same loops compiled, same bits
samplers.py        discrete Gaussians and the public polynomials
fields.py          several entries side by side in one coefficient
kahe.py            key-additive encryption of vectors, their sums, and what the noise says about a key
packed_shamir.py   one key in a few hundred bytes for each of many holders
decoding.py        find the holders whose replies don't fit
"""
