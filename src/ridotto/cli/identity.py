"""`ridotto identity`: show who a participant is, so that an operator and its partners can put it on their lists."""

from __future__ import annotations

from typing import Annotated

import typer

from ridotto.cli.options import Debug, Json, State


def identity(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Your name in the federation.")],
    state: State = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a participant's name and identity key, as an allow-list and a roster want them; make the key if need be.

    The key shown is the public one. The private one stays in the state folder.
    """
    from ridotto.cli.screen import machine
    from ridotto.config import state_directory
    from ridotto.participant.enter import Params, load_identity

    # Nothing is asked of a coordinator: the URL only fills its place.
    params = Params("http://localhost", name, state or state_directory())
    key = load_identity(params).public.hex()
    if json:
        machine("identity", name=name, key=key)
    else:
        print(f'"{name}" = "{key}"')
