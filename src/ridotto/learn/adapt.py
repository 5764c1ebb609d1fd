"""The way from a user's model object to its adapter: the only module that knows all of them."""

from __future__ import annotations

from ridotto.errors import DataError
from ridotto.learn.trainer import Model


def adapt(model: object) -> Model:
    """Return the adapter for a user's model object.

    model: a torch module, a fitted scikit-learn estimator, or a dict or tree of NumPy or JAX arrays. The library is
    recognised by the names of the object's base classes, so none is imported for an object of another.
    Raises DataError naming the type and the supported ones.

    >>> import numpy as np
    >>> model = {"weight": np.zeros((3, 2), np.float32)}
    >>> adapt(model).write(np.ones(6, np.float32))
    >>> float(model["weight"].sum())
    6.0
    """
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__}
    if "torch.nn.modules.module.Module" in bases:
        from ridotto.learn.torch_trainer import TorchModel

        return TorchModel(model)
    if "sklearn.base.BaseEstimator" in bases:
        from ridotto.learn.sklearn_trainer import SklearnModel

        return SklearnModel(model)
    if isinstance(model, (dict, list)):
        from ridotto.learn.numpy_trainer import TreeModel

        return TreeModel(model)
    raise DataError(
        f"a model of type {type(model).__module__}.{type(model).__qualname__} is not supported: give a torch module, "
        "a scikit-learn estimator, or a dict or list (nested as you like) of NumPy or JAX arrays"
    )
