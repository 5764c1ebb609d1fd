"""Options that several verbs share, with the same words."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ridotto.errors import ConfigError

ConfigFile = Annotated[
    Path, typer.Argument(metavar="FILE.toml", help="The configuration; docs/configuration.md lists every key.")
]
Url = Annotated[str, typer.Argument(metavar="URL", help="Where the coordinator is, as https://fl.example.org:8765.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback when something goes wrong.")]
Ca = Annotated[
    Path | None, typer.Option("--ca", metavar="PEM", help="Certificates of the authority that the server must have.")
]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", metavar="PEM", help="Your certificate, for a server that asks for one.")
]
CertificateKey = Annotated[
    Path | None, typer.Option("--key", metavar="PEM", help="The private key of your certificate.")
]
State = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where your identity key and your state file lie.")]
ProgramOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An argument for the program; may be given more than once."),
]


def program_options(given: Iterable[str] | None) -> dict[str, Any]:
    """Turn "key=value" words into arguments: a value is read as TOML, and as a text where it is no TOML.

    Raises ConfigError for a word without "=".

    >>> program_options(["clients=10", "alpha=0.5", "name=hospital"])
    {'clients': 10, 'alpha': 0.5, 'name': 'hospital'}
    """
    options = {}
    for word in given or ():
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f'--option {word} is not understood: expected KEY=VALUE, as in "--option clients=10"')
        options[key] = _value(value)
    return options


def certificate_pair(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Put a certificate and its key together. Raises ConfigError if only one of them is given."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--certificate and --key belong together: give both or none")
    return certificate, key


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
