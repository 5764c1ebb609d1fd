"""`ridotto infer`: classify hidden data with a hidden model, between two parties and a dealer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from ridotto.cli.options import Debug, Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ridotto.infer.world import SecretModel, World

LOGITS = "Reveal all outputs instead of the class: enough of them give a copy of the model."

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE.toml", help="The deployment: who is who; docs/encrypted-inference.md.")
]
MaybeConfig = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.toml", help="The deployment; without it, --local."),
]
Key = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Your key; NAME.key beside your certificate.")]
Client = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Which client you are; the only one without it.")
]
Model = Annotated[
    Path | None, typer.Option("--model", metavar="FILE", help="A model of yours, as .safetensors or .onnx.")
]
Program = Annotated[
    str | None,
    typer.Option(
        "--program",
        metavar="FILE.py:FUNCTION",
        help="What makes the torch module or scikit-learn estimator that a .safetensors file holds the numbers of.",
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait for parties and dealer.")
]
Local = Annotated[bool, typer.Option("--local", help="Start parties and dealer on this machine, to try it.")]

infer = typer.Typer(
    help="Classify data that nobody may see with a model that nobody may see.\n\n"
    "Two parties compute and a dealer helps; no two of them may work together. Only the class of each example becomes "
    "known, and only to who asks.",
)


@infer.command()
def keys(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Whom to make a key and a certificate for.")],
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where they go.")] = Path(),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a key and a certificate for each name: NAME.key stays with its owner, NAME.pem goes to everybody.

    Example: ridotto infer keys alice
    """
    from ridotto.cli.screen import line, machine, person
    from ridotto.crypto.certificates import make_certificate
    from ridotto.errors import ConfigError

    for name in names:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"a name is letters, digits, - and _, not {name}")
    for name in names:
        certificate, key = make_certificate(name, folder)
        if json:
            machine("keys", name=name, certificate=certificate, key=key)
        else:
            line(person(), f"{certificate} for everybody, {key} for {name} alone")


@infer.command()
def serve(
    party: Annotated[str, typer.Option(metavar="NAME", help="Which party of the deployment this is, or its dealer.")],
    config: Config,
    key: Key = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write counts here every second, for Prometheus.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a party or the dealer until it is stopped. It keeps nothing on disk: started again, it knows no model.

    Example: ridotto infer serve --party alice --config deployment.toml
    """
    from ridotto.cli.screen import line, machine, person
    from ridotto.infer.deployment import load_deployment
    from ridotto.infer.host import serve as run

    settings = load_deployment(config).settings(party, key, metrics)

    def ready(port: int) -> None:
        if json:
            machine("listening", party=party, port=port)
        else:
            line(person(), f"{party} listens on {settings.places[party].host}:{port}; Ctrl-C stops it")

    run(settings, ready)


@infer.command()
def share(
    ticket: Annotated[Path, typer.Argument(metavar="TICKET", help="Written here, for those who may ask.")],
    config: Config,
    model: Model = None,
    program: Program = None,
    examples: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Inputs like those to come, .npz or .npy, to check the model on."),
    ] = None,
    client: Client = None,
    key: Key = None,
    timeout: Timeout = 150.0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Share a model with the parties, and keep it there until Ctrl-C. Other clients ask with `predict --ticket`.

    Example: ridotto infer share model.ticket --model model.safetensors --config deployment.toml
    """
    import time

    from ridotto.cli.infer_files import fit, read_examples, read_graph
    from ridotto.cli.screen import line, machine, person
    from ridotto.errors import ConfigError

    if model is None:
        raise ConfigError("--model is missing: name a .safetensors or .onnx file")
    inputs = None if examples is None else read_examples(examples)[0]
    graph = read_graph(model, program, inputs)
    inputs = None if inputs is None else fit(inputs, graph.architecture.input_shape)
    with _connect(config, (client, key, timeout))() as world:
        shared = world.share_model(graph, examples=inputs)
        _write_ticket(ticket, shared.ticket())
        if json:
            machine("shared", model=model, ticket=ticket)
        else:
            line(person(), f"{model} is shared; {ticket} is for those who may ask. Ctrl-C takes it back")
        try:
            while True:
                time.sleep(1)
                world.check()
        except KeyboardInterrupt:
            ticket.unlink(missing_ok=True)


@infer.command()
def predict(
    inputs: Annotated[Path, typer.Argument(metavar="INPUTS", help="Examples: .npy, or .npz with x, and y to compare.")],
    model: Model = None,
    program: Program = None,
    ticket: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The ticket of a model that its owner shared.")
    ] = None,
    config: MaybeConfig = None,
    to: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Both parties, if they shall be those that you expect.")
    ] = None,
    dealer: Annotated[str | None, typer.Option(metavar="NAME", help="The dealer, likewise.")] = None,
    client: Client = None,
    key: Key = None,
    timeout: Timeout = 150.0,
    local: Local = False,
    logits: Annotated[bool, typer.Option("--logits", help=LOGITS)] = False,
    authenticated: Annotated[
        bool, typer.Option("--authenticated", help="Notice a party that deviates from the protocol; costs more.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, max=65536, help="Examples in one query.")] = 128,
    save: Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Write the classes (or logits) here.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify examples without showing them or the model to anybody. Only the classes become known, and only here.

    For example:

    ridotto infer predict --local --model model.safetensors images.npz

    ridotto infer predict --config deployment.toml --model model.onnx --to alice,bob --dealer dealer images.npz

    ridotto infer predict --config deployment.toml --ticket model.ticket images.npz
    """
    from ridotto.cli.infer_files import fit, read_examples, read_graph, save_array
    from ridotto.cli.infer_report import Report
    from ridotto.errors import ConfigError
    from ridotto.infer import AuthenticatedWorld

    if (model is None) == (ticket is None):
        raise ConfigError("say which model: one of --model FILE and --ticket FILE")
    if save is not None and save.suffix != ".npy":
        raise ConfigError(f"--save writes a .npy file, not {save}")
    if authenticated and ticket is not None:
        raise ConfigError("--authenticated goes with --model: a model is sealed by who asks")
    x, y = read_examples(inputs)
    graph = None if model is None else read_graph(model, program, x)
    x = x if graph is None else fit(x, graph.architecture.input_shape)
    admission = None if ticket is None else _read_ticket(ticket)
    with _world(config, local, (client, key, timeout), to, dealer)() as world:
        world = AuthenticatedWorld.of(world) if authenticated else world
        shared = _shared(world, graph, x) if admission is None else world.admit(admission)
        x = fit(x, tuple(shared.architecture.input_shape))
        report = Report(len(x), json=json)
        found = report.follow(_answers(shared, x, batch, logits=logits))
    if save is not None:
        save_array(save, found)
    report.show(found, y, graph, x)


@infer.command()
def bench(
    model: Model = None,
    program: Program = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Examples, .npz or .npy; random ones without it.")
    ] = None,
    config: MaybeConfig = None,
    client: Client = None,
    key: Key = None,
    timeout: Timeout = 150.0,
    batch: Annotated[list[int] | None, typer.Option(min=1, max=65536, help="Examples in one query; 1 and 128.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Queries of each size.")] = 20,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure queries: offline and online time, rounds and bytes, for a model of yours or 784-128-128-10.

    Example: ridotto infer bench --model model.safetensors --batch 1 --batch 64
    """
    from ridotto.cli.infer_files import example_model, fit, random_examples, read_examples, read_graph
    from ridotto.cli.infer_report import measure, show_costs

    x = None if inputs is None else read_examples(inputs)[0]
    graph = example_model() if model is None else read_graph(model, program, x)
    sizes = batch or [1, 128]
    x = random_examples(graph, max(sizes)) if x is None else fit(x, graph.architecture.input_shape)
    with _world(config, config is None, (client, key, timeout))() as world:
        shared = _shared(world, graph, x)
        rows = [measure(shared, x, size, repeats) for size in sizes]
    show_costs(rows, json=json)


Opened = Callable[[], "AbstractContextManager[World]"]


Who: TypeAlias = tuple[str | None, Path | None, float]
"""A client's name and key, if they are given, and how long it waits, in seconds."""


def _world(config: Path | None, local: bool, who: Who, to: str | None = None, dealer: str | None = None) -> Opened:
    """Return what opens the world that the options describe, after checking them."""
    from ridotto.errors import ConfigError
    from ridotto.infer import processes

    if (config is None) != local:
        raise ConfigError("say who computes: --config FILE.toml for a deployment, or --local to try it here")
    if config is None:
        if to or dealer:
            raise ConfigError("--to and --dealer name parties of a deployment: give its --config FILE.toml, too")
        return lambda: processes(timeout_s=who[2])
    return _connect(config, who, to, dealer)


def _connect(config: Path, who: Who, to: str | None = None, dealer: str | None = None) -> Opened:
    from ridotto.errors import ConfigError
    from ridotto.infer import connect
    from ridotto.infer.deployment import load_deployment

    client, key, timeout_s = who
    deployment = load_deployment(config)
    if to is not None and tuple(to.split(",")) != deployment.parties:
        raise ConfigError(f"--to is {to}, the parties in {config} are {','.join(deployment.parties)}")
    if dealer is not None and dealer != deployment.dealer:
        raise ConfigError(f"--dealer is {dealer}, the dealer in {config} is {deployment.dealer}")
    identity = deployment.identity(deployment.client(client), key)
    parties, third = deployment.contacts()
    return lambda: connect(identity, parties, third, timeout_s=timeout_s)


def _shared(world: World, graph: Any, x: NDArray[Any]) -> SecretModel:
    """Share a model with the widest encoding, after checking that it has room for these very examples."""
    from ridotto.infer import Fixed

    return world.share_model(graph, examples=x, fixed=Fixed())


def _answers(shared: SecretModel, x: NDArray[Any], batch: int, *, logits: bool) -> Any:
    """Yield (examples, what was revealed of them, what it cost) of one query after the other."""
    output: Literal["logits", "class"] = "logits" if logits else "class"
    if len(x) >= 3 * batch:
        shared.keep_ready(batch, 2, output)
    for start in range(0, len(x), batch):
        part = shared.world.share_input(x[start : start + batch], fixed=shared.fixed)
        if start + 3 * batch > len(x):
            shared.keep_ready(batch, 0, output)
        found = shared(part).reveal() if logits else shared(part).argmax().reveal()
        part.forget()
        yield len(found), found, shared.stats


def _write_ticket(path: Path, data: bytes) -> None:
    import os

    from ridotto.errors import StorageError

    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise StorageError(f"the ticket can't be written to {path}: {error.strerror or error}") from error


def _read_ticket(path: Path) -> bytes:
    from ridotto.errors import ConfigError

    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the ticket {path} can't be read: {error.strerror or error}") from error
