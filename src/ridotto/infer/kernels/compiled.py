"""The inner loops, compiled: the same functions as `plain`, the same bits, several times faster.

Compiled at the first import on a machine (some seconds), and kept by numba for the next process. One thread each.
"""

from __future__ import annotations

import numpy as np

from ridotto.core.compile import compiled, inlined
from ridotto.infer.kernels.plain import Words, pack, split, unpack, words_of

__all__ = [
    "digits",
    "fold",
    "fold_group",
    "matmul",
    "monomials",
    "pack",
    "select_narrow",
    "select_pair",
    "select_wide",
    "split",
    "transpose_bits",
    "truncated",
    "truncated_public",
    "unpack",
]

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
ZERO = np.uint64(0)
ONE = np.uint64(1)
TOP = np.uint64(63)
SIX = np.uint64(6)
SIXTY_THREE = np.int64(63)
LOW_63 = np.uint64((1 << 63) - 1)


@compiled("void(uint64[:,::1],uint64[:,::1],uint64[:,::1])", nogil=True)
def _matmul(left, right, out):  # type: ignore[no-untyped-def]
    rows, depth = left.shape
    width = right.shape[1]
    # Blocks of 4 by 4: each word of `right` and of `out` is loaded once for 16 or 4 products (measured: the fastest of
    # 4 by 1, 4 by 2, 2 by 4 and this).
    whole_rows, whole_depth = rows - rows % 4, depth - depth % 4
    for i in range(0, whole_rows, 4):
        o0, o1, o2, o3 = out[i], out[i + 1], out[i + 2], out[i + 3]
        for k in range(0, whole_depth, 4):
            a0, a1, a2, a3 = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
            b0, b1, b2, b3 = left[i + 1, k], left[i + 1, k + 1], left[i + 1, k + 2], left[i + 1, k + 3]
            c0, c1, c2, c3 = left[i + 2, k], left[i + 2, k + 1], left[i + 2, k + 2], left[i + 2, k + 3]
            d0, d1, d2, d3 = left[i + 3, k], left[i + 3, k + 1], left[i + 3, k + 2], left[i + 3, k + 3]
            r0, r1, r2, r3 = right[k], right[k + 1], right[k + 2], right[k + 3]
            for j in range(width):
                x0, x1, x2, x3 = r0[j], r1[j], r2[j], r3[j]
                o0[j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                o1[j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                o2[j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                o3[j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
        for k in range(whole_depth, depth):
            a0, a1, a2, a3 = left[i, k], left[i + 1, k], left[i + 2, k], left[i + 3, k]
            r0 = right[k]
            for j in range(width):
                o0[j] += a0 * r0[j]
                o1[j] += a1 * r0[j]
                o2[j] += a2 * r0[j]
                o3[j] += a3 * r0[j]
    for i in range(whole_rows, rows):
        o0 = out[i]
        for k in range(0, whole_depth, 4):
            a0, a1, a2, a3 = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
            r0, r1, r2, r3 = right[k], right[k + 1], right[k + 2], right[k + 3]
            for j in range(width):
                o0[j] += a0 * r0[j] + a1 * r1[j] + a2 * r2[j] + a3 * r3[j]
        for k in range(whole_depth, depth):
            a0, r0 = left[i, k], right[k]
            for j in range(width):
                o0[j] += a0 * r0[j]


def matmul(left: Words, right: Words) -> Words:
    """Return left @ right mod 2^64. left: (m, k); right: (k, n)."""
    out = np.zeros((left.shape[0], right.shape[1]), np.uint64)
    _matmul(np.ascontiguousarray(left), np.ascontiguousarray(right), out)
    return out


@compiled("void(uint64[::1],uint64[:,::1])", nogil=True)
def _transpose(values, out):  # type: ignore[no-untyped-def]
    block = np.empty(64, np.uint64)
    count, words = out.shape
    for word in range(words):
        start = word * 64
        here = min(64, values.size - start)
        for i in range(here):
            block[i] = values[start + i]
        for i in range(here, 64):
            block[i] = ZERO
        # Exchange off-diagonal blocks of 32, 16, .. 1 bits (Warren, "Hacker's Delight", section 7-3).
        width, mask = 32, np.uint64(0x00000000FFFFFFFF)
        while width:
            shift = np.uint64(width)
            for low in range(0, 64, 2 * width):
                for i in range(low, low + width):
                    swap = ((block[i] >> shift) ^ block[i + width]) & mask
                    block[i] ^= swap << shift
                    block[i + width] ^= swap
            width >>= 1
            mask ^= mask << np.uint64(width)
        for bit in range(count):
            out[bit, word] = block[bit]


def transpose_bits(values: Words, count: int) -> Words:
    """Return bits 0 to count - 1 of `values` as planes. values: (n,). Returns (count, words)."""
    out = np.empty((count, words_of(values.size)), np.uint64)
    _transpose(np.ascontiguousarray(values), out)
    return out


@compiled("void(uint64[:,::1],uint64[:,:,::1])", nogil=True)
def _monomials(planes, out):  # type: ignore[no-untyped-def]
    for d in range(out.shape[0]):
        for w in range(out.shape[2]):
            out[d, 0, w] = planes[4 * d, w]
            out[d, 1, w] = planes[4 * d + 1, w]
            out[d, 3, w] = planes[4 * d + 2, w]
            out[d, 7, w] = planes[4 * d + 3, w]
        for top in (1, 3, 7):
            for s in range(top):
                for w in range(out.shape[2]):
                    out[d, top + s + 1, w] = out[d, top, w] & out[d, s, w]


def monomials(planes: Words) -> Words:
    """Return all products of the bits of each digit of 4 bits. planes: (4 D, w). Returns (D, 15, w), set S at S - 1."""
    out = np.empty((planes.shape[0] // 4, 15, planes.shape[1]), np.uint64)
    _monomials(planes, out)
    return out


@compiled("void(uint64[:,::1],uint64[:,:,::1],uint64,uint64[:,::1],uint64[:,::1])", nogil=True)
def _digits(public, shares, ones, less, equal):  # type: ignore[no-untyped-def]
    for d in range(shares.shape[0]):
        m = shares[d]
        p0, p1, p2, p3 = public[4 * d], public[4 * d + 1], public[4 * d + 2], public[4 * d + 3]
        for w in range(shares.shape[2]):
            s3, s2, s1, s0 = ~p3[w], ~p2[w], ~p1[w], ~p0[w]
            lt = s3 & m[7, w]
            e0 = (s3 & ones) ^ m[7, w]
            e1 = (s3 & m[0, w]) ^ m[8, w]
            e2 = (s3 & m[1, w]) ^ m[9, w]
            e3 = (s3 & m[2, w]) ^ m[10, w]
            e4 = (s3 & m[3, w]) ^ m[11, w]
            e5 = (s3 & m[4, w]) ^ m[12, w]
            e6 = (s3 & m[5, w]) ^ m[13, w]
            e7 = (s3 & m[6, w]) ^ m[14, w]
            lt ^= s2 & e4
            e0 = (s2 & e0) ^ e4
            e1 = (s2 & e1) ^ e5
            e2 = (s2 & e2) ^ e6
            e3 = (s2 & e3) ^ e7
            lt ^= s1 & e2
            e0 = (s1 & e0) ^ e2
            e1 = (s1 & e1) ^ e3
            lt ^= s0 & e1
            less[d, w] = lt
            equal[d, w] = (s0 & e0) ^ e1


def digits(public: Words, shares: Words, first: bool) -> tuple[Words, Words]:
    """Return shares of [public digit < secret digit] and of their equality; see `plain.digits`."""
    less = np.empty((shares.shape[0], shares.shape[2]), np.uint64)
    equal = np.empty_like(less)
    _digits(public, shares, ALL if first else ZERO, less, equal)
    return less, equal


@compiled("void(uint64[:,::1],uint64[:,::1],uint64,uint64[::1])", nogil=True)
def _fold(opened, table, ones, out):  # type: ignore[no-untyped-def]
    size = 1 << opened.shape[0]
    sets = np.empty(size, np.uint64)
    for w in range(out.size):
        sets[0] = ones
        for s in range(1, size):
            sets[s] = table[s - 1, w]
        left = size >> 1
        for j in range(opened.shape[0]):
            masked = opened[j, w]
            for s in range(left):
                sets[s] = (masked & sets[2 * s]) ^ sets[2 * s + 1]
            left >>= 1
        out[w] = sets[0]


def fold(opened: Words, table: Words, first: bool) -> Words:
    """Return a share of the product of E masked bits; see `plain.fold`."""
    out = np.empty(opened.shape[1], np.uint64)
    _fold(np.ascontiguousarray(opened), table, ALL if first else ZERO, out)
    return out


@compiled("void(uint64[:,::1],uint64[:,::1],int64,uint64,uint64[::1])", nogil=True)
def _fold_group(opened, table, equals, ones, total):  # type: ignore[no-untyped-def]
    sets = np.empty(1 << (equals + 1), np.uint64)
    for w in range(total.size):
        place = (1 << equals) - 1
        for c in range(opened.shape[0] - equals):
            size = 1 << (c + 1)
            masked = opened[equals + c, w]
            sets[0] = (masked & ones) ^ table[place, w]
            for s in range(1, size):
                sets[s] = (masked & table[s - 1, w]) ^ table[place + s, w]
            left = size >> 1
            for j in range(c + 1):
                value = opened[j, w]
                for s in range(left):
                    sets[s] = (value & sets[2 * s]) ^ sets[2 * s + 1]
                left >>= 1
            total[w] ^= sets[0]
            place += size


def fold_group(opened: Words, table: Words, less: Words, equals: int, first: bool) -> Words:
    """Return a share of [number < secret] of a group of digits; see `plain.fold_group`."""
    total = less.copy()
    _fold_group(np.ascontiguousarray(opened), table, equals, ALL if first else ZERO, total)
    return total


_ROW = "uint64[::1]"


@compiled(f"void({','.join([_ROW] * 6)},boolean,{_ROW})", nogil=True)
def _select_narrow(d, bits, r, rho, rho_r, base, first, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        chosen = rho[i] * d[i] - rho_r[i]
        whole = (d[i] if first else ZERO) - r[i]
        b = (bits[i >> 6] >> np.uint64(i & SIXTY_THREE)) & ONE
        out[i] = base[i] + (whole - chosen if b else chosen)


def select_narrow(d: Words, bits: Words, r: Words, rho: Words, rho_r: Words, base: Words, first: bool) -> Words:
    """Return base + a share of b (d - r); see `plain.select_narrow`."""
    out = np.empty_like(base)
    _select_narrow(d, bits, r, rho, rho_r, base, first, out)
    return out


@inlined
def _public(y, f):  # type: ignore[no-untyped-def]
    return ((y & LOW_63) >> f) + ((y >> TOP) << (TOP - f)) - (ONE << (TOP - ONE - f))


@inlined
def _secret(y, a, b):  # type: ignore[no-untyped-def]
    return (ZERO - b if y >> TOP else b) - a


@compiled(f"void({_ROW},uint64,{_ROW})", nogil=True)
def _truncated_public(y, f, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = _public(y[i], f)


def truncated_public(y: Words, fraction_bits: int) -> Words:
    """Return the public part of y >> f; see `plain.truncated_public`."""
    out = np.empty_like(y)
    _truncated_public(y.reshape(-1), np.uint64(fraction_bits), out.reshape(-1))
    return out


@compiled(f"void({_ROW},{_ROW},{_ROW},uint64,boolean,{_ROW})", nogil=True)
def _truncated(y, a, b, f, first, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        value = _secret(y[i], a[i], b[i])
        out[i] = value + _public(y[i], f) if first else value


def truncated(y: Words, a: Words, b: Words, fraction_bits: int, first: bool) -> Words:
    """Return a share of y >> f; see `plain.truncated`."""
    out = np.empty_like(y)
    _truncated(y.reshape(-1), a.reshape(-1), b.reshape(-1), np.uint64(fraction_bits), first, out.reshape(-1))
    return out


@compiled(f"void({','.join([_ROW] * 8)},uint64,boolean,{_ROW})", nogil=True)
def _select_wide(y, bits, a, b, rho, rho_a, rho_b, base, f, first, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        public = _public(y[i], f)
        chosen = rho[i] * public + _secret(y[i], rho_a[i], rho_b[i])
        whole = _secret(y[i], a[i], b[i]) + (public if first else ZERO)
        bit = (bits[i >> 6] >> np.uint64(i & SIXTY_THREE)) & ONE
        out[i] = base[i] + (whole - chosen if bit else chosen)


def select_wide(
    y: Words, bits: Words, material: tuple[Words, ...], base: Words, fraction_bits: int, first: bool
) -> Words:
    """Return base + a share of b (y >> f); see `plain.select_wide`."""
    out = np.empty_like(base)
    _select_wide(y, bits, *material, base, np.uint64(fraction_bits), first, out)
    return out


@compiled(f"void({','.join([_ROW] * 12)},uint64,boolean,{_ROW})", nogil=True)
def _select_pair(y0, y1, bits, a0, b0, a1, b1, rho, rho_a, rho_b0, rho_b1, base, f, first, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        public0, public1 = _public(y0[i], f), _public(y1[i], f)
        chosen = rho[i] * (public1 - public0) + _secret(y1[i], rho_a[i], rho_b1[i]) - _secret(y0[i], ZERO, rho_b0[i])
        z0 = _secret(y0[i], a0[i], b0[i]) + (public0 if first else ZERO)
        z1 = _secret(y1[i], a1[i], b1[i]) + (public1 if first else ZERO)
        bit = (bits[i >> 6] >> np.uint64(i & SIXTY_THREE)) & ONE
        out[i] = base[i] + z0 + (z1 - z0 - chosen if bit else chosen)


def select_pair(
    y0: Words, y1: Words, bits: Words, material: tuple[Words, ...], base: Words, fraction_bits: int, first: bool
) -> Words:
    """Return base + shares of z0 + b (z1 - z0) with z = y >> f; see `plain.select_pair`."""
    out = np.empty_like(base)
    _select_pair(y0, y1, bits, *material, base, np.uint64(fraction_bits), first, out)
    return out
