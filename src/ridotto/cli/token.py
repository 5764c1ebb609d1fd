"""`ridotto token`: make one-time enrolment tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from ridotto.cli.options import ConfigFile, Debug, Json


def token(
    file: ConfigFile,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many to make.")] = 1,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make one-time tokens, one a line: each lets one participant enrol. The coordinator may be running meanwhile.

    Only their hashes are stored, so they are shown once.
    """
    from ridotto.cli.screen import machine
    from ridotto.config import ServerConfig, beside, load_config
    from ridotto.coordinator.auth import issue_tokens
    from ridotto.coordinator.folder import DATABASE
    from ridotto.coordinator.store_sql import SqlStore
    from ridotto.core.rng import OsRng
    from ridotto.errors import StorageError

    config = load_config(file, ServerConfig)
    folder = beside(file, config.federation.data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the data folder {folder} can't be made: {error.strerror or error}") from error
    store = SqlStore.in_file(folder / DATABASE)
    try:
        tokens = issue_tokens(store, count, OsRng())
    finally:
        store.close()
    if json:
        machine("tokens", tokens=tokens)
    else:
        print("\n".join(tokens))
