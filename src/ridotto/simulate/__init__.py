"""Many participants in one process, in virtual time."""

from ridotto.simulate import partition as partition
