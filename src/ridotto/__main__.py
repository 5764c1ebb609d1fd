"""`python -m ridotto` is `ridotto`."""

from __future__ import annotations

from ridotto.cli import main

if __name__ == "__main__":
    main()
