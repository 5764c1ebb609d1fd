"""Train one model together, and let nobody see one party's update.

The public names are listed in `_LAZY` and loaded when they are first used, so that `import ridotto` stays fast and
needs no optional dependency (PEP 562).

Two public functions, `rounds` and `simulate`, bear the names of packages of ours. Python binds a package to its parent
when it is imported, which would put a module where a user expects the function. So the module is made callable, and
passes the call on: `ridotto.rounds(url, model)` and `import ridotto.rounds.plan` both work, in either order.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ridotto.errors import RidottoError as RidottoError

if TYPE_CHECKING:
    from inspect import Signature

    # One line for every name in _LAZY, written `from module import name as name`; a test compares the two.
    from ridotto.core.rng import insecure_seeded_rng as insecure_seeded_rng
    from ridotto.learn.jax_trainer import JaxTrainer as JaxTrainer
    from ridotto.learn.numpy_trainer import FunctionTrainer as FunctionTrainer
    from ridotto.learn.numpy_trainer import NumpyTrainer as NumpyTrainer
    from ridotto.learn.sklearn_trainer import SklearnTrainer as SklearnTrainer
    from ridotto.learn.sklearn_trainer import digits as digits
    from ridotto.learn.torch_trainer import TorchTrainer as TorchTrainer
    from ridotto.participant.rounds import rounds as rounds
    from ridotto.rounds.clipping import AdaptiveClip as AdaptiveClip
    from ridotto.rounds.clipping import Clip as Clip
    from ridotto.rounds.compression import CountSketch as CountSketch
    from ridotto.rounds.compression import ErrorFeedback as ErrorFeedback
    from ridotto.rounds.compression import LowRank as LowRank
    from ridotto.rounds.compression import Quantize as Quantize
    from ridotto.rounds.compression import Rotate as Rotate
    from ridotto.rounds.compression import Sample as Sample
    from ridotto.rounds.compression import Ternary as Ternary
    from ridotto.rounds.compression import TopK as TopK
    from ridotto.rounds.plan import Algorithm as Algorithm
    from ridotto.rounds.plan import BandedGaussian as BandedGaussian
    from ridotto.rounds.plan import CentralGaussian as CentralGaussian
    from ridotto.rounds.plan import Committee as Committee
    from ridotto.rounds.plan import CommitteeGaussian as CommitteeGaussian
    from ridotto.rounds.plan import DistributedGaussian as DistributedGaussian
    from ridotto.rounds.plan import DistributedSkellam as DistributedSkellam
    from ridotto.rounds.plan import Helpers as Helpers
    from ridotto.rounds.plan import Ideal as Ideal
    from ridotto.rounds.plan import LocalGaussian as LocalGaussian
    from ridotto.rounds.plan import Oneshot as Oneshot
    from ridotto.rounds.plan import Optimiser as Optimiser
    from ridotto.rounds.plan import Pairwise as Pairwise
    from ridotto.rounds.plan import Plan as Plan
    from ridotto.rounds.plan import PrivUnit as PrivUnit
    from ridotto.rounds.plan import Risk as Risk
    from ridotto.rounds.policy import Policy as Policy
    from ridotto.rounds.robustness import BucketedMedian as BucketedMedian
    from ridotto.rounds.robustness import NormBound as NormBound
    from ridotto.rounds.robustness import Robust as Robust
    from ridotto.simulate import fleets as fleets
    from ridotto.simulate import pace as pace
    from ridotto.simulate import partition as partition
    from ridotto.simulate import sampling as sampling
    from ridotto.simulate.data import ClientData as ClientData
    from ridotto.simulate.result import Result as Result
    from ridotto.simulate.simulation import simulate as simulate
    from ridotto.tasks import Task as Task
    from ridotto.trust.keep import Receipts as Receipts

__version__ = "0.1.0"

_LAZY: dict[str, str] = {
    "AdaptiveClip": "ridotto.rounds.clipping",
    "Algorithm": "ridotto.rounds.plan",
    "BandedGaussian": "ridotto.rounds.plan",
    "BucketedMedian": "ridotto.rounds.robustness",
    "CentralGaussian": "ridotto.rounds.plan",
    "ClientData": "ridotto.simulate.data",
    "Clip": "ridotto.rounds.clipping",
    "Committee": "ridotto.rounds.plan",
    "CommitteeGaussian": "ridotto.rounds.plan",
    "CountSketch": "ridotto.rounds.compression",
    "DistributedGaussian": "ridotto.rounds.plan",
    "DistributedSkellam": "ridotto.rounds.plan",
    "ErrorFeedback": "ridotto.rounds.compression",
    "FunctionTrainer": "ridotto.learn.numpy_trainer",
    "Helpers": "ridotto.rounds.plan",
    "Ideal": "ridotto.rounds.plan",
    "JaxTrainer": "ridotto.learn.jax_trainer",
    "LocalGaussian": "ridotto.rounds.plan",
    "LowRank": "ridotto.rounds.compression",
    "NormBound": "ridotto.rounds.robustness",
    "NumpyTrainer": "ridotto.learn.numpy_trainer",
    "Optimiser": "ridotto.rounds.plan",
    "Oneshot": "ridotto.rounds.plan",
    "Pairwise": "ridotto.rounds.plan",
    "Plan": "ridotto.rounds.plan",
    "Policy": "ridotto.rounds.policy",
    "PrivUnit": "ridotto.rounds.plan",
    "Quantize": "ridotto.rounds.compression",
    "Receipts": "ridotto.trust.keep",
    "Result": "ridotto.simulate.result",
    "Risk": "ridotto.rounds.plan",
    "Robust": "ridotto.rounds.robustness",
    "Rotate": "ridotto.rounds.compression",
    "Sample": "ridotto.rounds.compression",
    "SklearnTrainer": "ridotto.learn.sklearn_trainer",
    "Task": "ridotto.tasks",
    "Ternary": "ridotto.rounds.compression",
    "TopK": "ridotto.rounds.compression",
    "TorchTrainer": "ridotto.learn.torch_trainer",
    "digits": "ridotto.learn.sklearn_trainer",
    "fleets": "ridotto.simulate",
    "insecure_seeded_rng": "ridotto.core.rng",
    "pace": "ridotto.simulate",
    "partition": "ridotto.simulate",
    "rounds": "ridotto.participant.rounds",
    "sampling": "ridotto.simulate",
    "simulate": "ridotto.simulate.simulation",
}
"""Public name -> the module that defines it."""

_EAGER = ("RidottoError", "__version__")


def _load(name: str) -> Any:
    """Import the module behind a lazy name, and return what the name stands for."""
    return getattr(import_module(_LAZY[name]), name)


if not TYPE_CHECKING:  # A type checker that saw this would believe that every misspelt name exists.

    def __getattr__(name: str) -> Any:
        """Load a public name when it is first used."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = _load(name)
        return globals().setdefault(name, value)  # loading may have bound the package of that name: it stays


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*_EAGER, *_LAZY})


class _CallableModule(ModuleType):
    """A package of ours that is also a public function of the same name: `help` and notebooks show the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the public function that bears this package's name."""
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Any:
        return _load(self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> Signature:
        """Return the function's signature, for `inspect` and everything that asks it."""
        from inspect import signature

        return signature(self._function)

    if not TYPE_CHECKING:  # `__doc__` is a plain attribute of every module, as far as a type checker knows.

        @property
        def __doc__(self):
            """Return the function's docstring."""
            return self._function.__doc__


class _Root(ModuleType):
    """The class of this module: makes a package callable when Python binds it to a lazy name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _LAZY and isinstance(value, ModuleType):
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root
