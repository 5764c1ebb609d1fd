"""The PET protocol of xaynet, so that its existing clients can take part: see docs/protocols/xaynet.md.

Off unless somebody asks for it: it protects less than our own protocols, and the page says what. Needs the extra
`xaynet` (PyNaCl); with `speed` (numba), masks are derived twice as fast.
"""
