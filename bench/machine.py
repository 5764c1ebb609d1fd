"""On what a table was measured: numbers without it mean nothing."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "cryptography", "msgspec", "granian")


def describe() -> str:
    parts = [
        datetime.now(UTC).date().isoformat(),
        processor(),
        f"{os.cpu_count()} cores",
        platform.system(),
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in PACKAGES),
    ]
    return ", ".join(parts)


def processor() -> str:
    """Return the processor's name, and its model number: virtual machines often say little else. Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    model = f" family {found.get('cpu family', '?')} model {found.get('model', '?')}"
    vector = "with" if "vaes" in found.get("flags", "").split() else "without"
    return f"{found.get('model name', platform.machine())}{model}, {vector} vector AES"
