"""The command line: one verb per file. Whatever goes wrong ends in one sentence and a code of docs/exit-codes.md.

Only this folder imports typer and rich. A verb imports what it needs when it runs, so that `ridotto --help` is quick.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ridotto import __version__
from ridotto.cli.audit import audit
from ridotto.cli.demo import demo
from ridotto.cli.failures import INTERRUPTED, failure_of
from ridotto.cli.identity import identity
from ridotto.cli.infer import infer
from ridotto.cli.join import join
from ridotto.cli.privacy import privacy
from ridotto.cli.serve import serve
from ridotto.cli.simulate import simulate
from ridotto.cli.status import status
from ridotto.cli.token import token

app = typer.Typer(
    help="Train one model together, and let nobody see one party's update.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (demo, simulate, privacy, serve, token, join, identity, status, audit):
    app.command()(verb)
app.add_typer(infer, name="infer")


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one verb and return its exit code; a failure is one sentence on standard error."""
    try:
        code: Any = app(args=list(arguments) or ["--help"], prog_name="ridotto", standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except KeyboardInterrupt as stop:
        if str(stop):  # what was interrupted has something to say
            print(f"ridotto: {stop}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 0  # whoever read our output has seen enough, as `head` does
    except Exception as error:
        return _report(error, debug="--debug" in arguments)
    return code if isinstance(code, int) else 0


def _report(error: Exception, *, debug: bool) -> int:
    """Print what went wrong to standard error and return the exit code."""
    if debug:
        traceback.print_exception(error)
    failure = failure_of(error)
    print(f"ridotto: {failure.sentence}", file=sys.stderr)
    return failure.exit_code


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"ridotto {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train one model together, and let nobody see one party's update."""
