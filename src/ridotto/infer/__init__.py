"""Encrypted inference: classify hidden data with a hidden model, between two parties and a dealer.

    import ridotto.infer as infer

    with infer.local(parties=2) as world:           # or infer.processes(), or infer.connect(...) to other hosts
        secret_model = world.share(model)           # Graph, nn.Module (with examples=...), ONNX file, scikit-learn
        secret_x = world.share(images)
        classes = secret_model(secret_x).argmax().reveal()
        logits = secret_model(secret_x).reveal()    # tells more: only when asked for

**What is assumed.** Two parties compute, a dealer hands out correlated randomness ahead of time. Security is
*semi-honest*: each of the three follows the protocol and may look at everything it sees. As long as no two of them
work together,

    who            learns
    client         the class of each example, or the logits if it asks for them
    model owner    nothing
    party 0, 1     the model's architecture and encoding, the number of examples, when; otherwise uniform words
    dealer         the same, and no word of a query
    the network    sizes and times: TLS on every link is part of the protocol, because the dealer's knowledge and a
                   recording of what the parties say would give everything

A party that deviates can falsify a result unnoticed, except for an `AuthenticatedWorld`. Two that collude learn inputs
and weights. Nobody outside the project has reviewed this. See docs/encrypted-inference.md and
docs/protocols/inference.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ridotto.infer.authenticated_world import AuthenticatedWorld
    from ridotto.infer.children import processes
    from ridotto.infer.fixed import Fixed
    from ridotto.infer.from_tensors import dense_graph
    from ridotto.infer.graph import Architecture, Graph
    from ridotto.infer.in_process import local
    from ridotto.infer.pysyft import module, tensor
    from ridotto.infer.reference import forward
    from ridotto.infer.remote import connect
    from ridotto.infer.tls import Contact, Identity
    from ridotto.infer.world import SecretInput, SecretModel, Stats, World

__all__ = [
    "Architecture",
    "AuthenticatedWorld",
    "Contact",
    "Fixed",
    "Graph",
    "Identity",
    "SecretInput",
    "SecretModel",
    "Stats",
    "World",
    "connect",
    "dense_graph",
    "forward",
    "local",
    "module",
    "processes",
    "tensor",
]

_HOMES = {
    "Architecture": "graph",
    "AuthenticatedWorld": "authenticated_world",
    "Contact": "tls",
    "Fixed": "fixed",
    "Graph": "graph",
    "Identity": "tls",
    "SecretInput": "world",
    "SecretModel": "world",
    "Stats": "world",
    "World": "world",
    "connect": "remote",
    "dense_graph": "from_tensors",
    "forward": "reference",
    "local": "in_process",
    "module": "pysyft",
    "processes": "children",
    "tensor": "pysyft",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is asked for: `import ridotto.infer` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
