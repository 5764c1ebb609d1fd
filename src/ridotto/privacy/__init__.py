"""Clipping, noise and the accounting of what they protect: mechanisms emit events, accountants read them."""
