"""Compression that adds up: a file per codec. Plans name them (`rounds.compression`); docs/compression.md compares."""

from __future__ import annotations

from ridotto.learn.compress.codec import Codec as Codec
from ridotto.learn.compress.codec import Shared as Shared
from ridotto.learn.compress.codec import chain as chain
from ridotto.learn.compress.codec import error_feedback as error_feedback
