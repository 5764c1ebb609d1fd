"""What a person is told when something goes wrong: one sentence, and the exit code of docs/exit-codes.md."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass

from ridotto.errors import ConfigError, RidottoError, StorageError, UnreachableError

INTERRUPTED = 130
"""What shells report for a program that ended by Ctrl-C: 128 + SIGINT."""

USAGE = ConfigError.exit_code
"""The code for a wrong argument; what typer uses, too."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Failure:
    """Hold what is shown and what the process ends with. sentence: one line, without a traceback."""

    sentence: str
    exit_code: int


def failure_of(error: Exception) -> Failure:
    """Say what an error means for whoever typed the command."""
    if isinstance(error, RidottoError):
        return Failure(_one_line(str(error)), error.exit_code)
    if isinstance(error, OSError):
        return _of_system(error)
    if hasattr(error, "format_message"):
        return Failure(_usage(error), USAGE)
    return Failure(_unexpected(error), RidottoError.exit_code)


def _of_system(error: OSError) -> Failure:
    what = error.strerror or str(error)
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in DISK_FULL:
        sentence = f"the disk is full{where}: make room and start again, what was acknowledged is not lost"
        return Failure(sentence, StorageError.exit_code)
    if error.errno == errno.EADDRINUSE:
        return Failure(f"the port is in use{where}: stop who listens there, or choose another port", USAGE)
    if isinstance(error, ConnectionError):
        return Failure(f"the connection failed{where}: {what}; try again later", UnreachableError.exit_code)
    if error.filename:
        return Failure(f"{error.filename} can't be used: {what}", StorageError.exit_code)
    return Failure(_unexpected(error), RidottoError.exit_code)


def _usage(error: Exception) -> str:
    message = _one_line(error.format_message())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ridotto"
    return f"{message.rstrip('.')}; `{command} --help` lists what there is"


def _unexpected(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    notes = " ".join(getattr(error, "__notes__", ()))
    said = _one_line(f"{error} {notes}") or "without a message"
    return f"unexpected {type(error).__name__}{where}: {said}; run again with --debug to see how it came about"


def _one_line(text: str) -> str:
    return " ".join(text.split())
