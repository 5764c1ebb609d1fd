"""`ridotto serve`: run a coordinator as a configuration file says."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ridotto.cli.options import ConfigFile, Debug, Json

if TYPE_CHECKING:
    from ridotto.config import ServerConfig
    from ridotto.coordinator.folder import CoordinatorFolder
    from ridotto.coordinator.serve import ServerSettings
    from ridotto.coordinator.settings import FederationSettings
    from ridotto.rounds.service import FederationInfo
    from ridotto.tasks import Task

TOKENS_FILE = "tokens.txt"


def serve(
    file: ConfigFile,
    port: Annotated[int | None, typer.Option(help="Another port than the file's; 0 takes a free one.")] = None,
    xaynet: Annotated[bool, typer.Option("--xaynet", help="For existing clients of xaynet, in place of ours.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a coordinator until it is stopped. Started again it goes on where it was: nothing acknowledged is lost."""
    from ridotto.config import ServerConfig, load_config

    config = load_config(file, ServerConfig)
    _log()
    try:
        _run(file, config, port, xaynet=xaynet, json=json)
    except KeyboardInterrupt:
        # The server has stopped in order already; a signal that came before it listened ends here.
        return


def _run(file: Path, config: ServerConfig, port: int | None, *, xaynet: bool, json: bool) -> None:
    from ridotto.config import beside
    from ridotto.coordinator.folder import CoordinatorFolder
    from ridotto.coordinator.serve import serve as run
    from ridotto.tasks import load_task

    task = load_task(config.program, config.options, file.parent)
    server = _server(file, config, port)
    if xaynet:
        from ridotto.cli.xaynet import serve_xaynet_clients

        serve_xaynet_clients(config, task, server, _made(beside(file, config.federation.data)), json=json)
        return
    settings, data = _settings(config), _made(beside(file, config.federation.data))
    with CoordinatorFolder(data) as folder:
        tokens = _first_tokens(folder, config.enrolment.tokens)
        federation = folder.federation(settings, task.trainer.layout, task.trainer.initial())

        def ready(url: str) -> None:
            _greet(url, federation.info(), folder, tokens, (config, task), json=json)

        run(federation, server, ready=ready)


def _settings(config: ServerConfig) -> FederationSettings:
    from ridotto.coordinator.settings import FederationSettings

    return FederationSettings(
        name=config.federation.name,
        plan=config.plan,
        rounds=config.rounds,
        max_failures=config.federation.max_failures,
        presence_s=config.federation.presence_s,
        allowed=config.enrolment.allow or None,
    )


def _server(file: Path, config: ServerConfig, port: int | None) -> ServerSettings:
    from ridotto.config import beside
    from ridotto.coordinator.serve import ServerSettings

    section, tls = config.federation, config.tls
    return ServerSettings(
        host=section.host,
        port=section.port if port is None else port,
        certificate=None if tls is None else beside(file, tls.certificate),
        key=None if tls is None else beside(file, tls.key),
        client_ca=None if tls is None or tls.client_ca is None else beside(file, tls.client_ca),
    )


def _made(folder: Path) -> Path:
    from ridotto.errors import StorageError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the data folder {folder} can't be made: {error.strerror or error}") from error
    return folder


def _first_tokens(folder: CoordinatorFolder, count: int) -> Path | None:
    """Make the tokens that the configuration asks for, once, and return the file that they are in."""
    from ridotto.coordinator.auth import issue_tokens
    from ridotto.core.rng import OsRng

    if not count:
        return None
    path = folder.folder / TOKENS_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join([*issue_tokens(folder.store, count, OsRng()), ""]))
    return path


def _greet(
    url: str,
    info: FederationInfo,
    folder: CoordinatorFolder,
    tokens: Path | None,
    given: tuple[ServerConfig, Task],
    *,
    json: bool,
) -> None:
    from ridotto.cli.screen import line, machine, pairs, person

    config, task = given
    key = folder.identity.public.hex()
    if json:
        privacy = None if info.privacy is None else info.privacy.as_dict()
        facts = {"url": url, "coordinator": key, "data": folder.folder, "receipts": folder.receipts, "tokens": tokens}
        machine("listening", **facts, privacy=privacy)
        return
    shown = {
        "listening at": url,
        "protection": info.protection,
        **({} if info.privacy is None else {"privacy": str(info.privacy)}),
        "coordinator": key,
        "data": str(folder.folder),
        "receipts": f"{folder.receipts}  (of every attempt, for `ridotto audit`)",
        "tokens": _tokens(tokens, len(config.enrolment.allow)),
        **_helpers(info, url),
        "join with": _join(url, config.program, task),
    }
    console = person()
    console.print(pairs(f"{config.federation.name}: {config.rounds} rounds", shown))
    line(console, "Ctrl-C stops it; started again, it goes on where it was.", "dim")


def _helpers(info: FederationInfo, url: str) -> dict[str, str]:
    """Say who is to serve on committees, and how; nothing where the plan asks for nobody."""
    asked = info.plan.helpers
    if asked is None:
        return {}
    return {"helpers": f"{', '.join(asked.keys)}: each runs `ridotto join {url} --committee --name NAME`"}


def _tokens(file: Path | None, allowed: int) -> str:
    if file is not None:
        return f"{file}  (one for each participant)"
    more = "`ridotto token` with this file makes some"
    return f"not needed by the {allowed} of the allow-list; {more}" if allowed else f"nobody can enrol yet: {more}"


def _join(url: str, program: str, task: Task) -> str:
    if not task.clients:  # the program is the coordinator's only: participants bring their own
        return f'ridotto.rounds("{url}", model, examples=..., token=...) in a script of their own'
    return f"ridotto join {url} --program {program} --client N --token TOKEN"


def _log() -> None:
    """Show what the coordinator logs, on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    root = logging.getLogger("ridotto")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
