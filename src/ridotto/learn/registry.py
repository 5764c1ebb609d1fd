"""Making things by name, as a plan or a configuration file asks for them: strategies, algorithms, rules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ridotto.errors import PlanError

Made = TypeVar("Made")
"""What the constructors of one registry make."""


def constructor_of(
    kind: str,
    constructors: Mapping[str, Callable[..., Made]],
    name: str,
    parameters: Mapping[str, Any],
) -> Callable[..., Made]:
    """Return the constructor called `name`, after checking that `parameters` are what it takes.

    kind: what it makes, in words.
    Raises PlanError for an unknown name, or an unknown or missing parameter, listing the known ones.
    """
    if name not in constructors:
        raise PlanError(f"there is no {kind} {name!r}; the known ones are {', '.join(constructors)}")
    known = inspect.signature(constructors[name]).parameters
    names = f"its parameters are {', '.join(known)}" if known else "it has none"
    for given in parameters:
        if given not in known:
            raise PlanError(f"{name} has no parameter {given!r}; {names}")
    for wanted, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and wanted not in parameters:
            raise PlanError(f"{name} needs {wanted}, which has no default; {names}")
    return constructors[name]
