"""The pool's other side: what its processes share, what they do, and how they are started."""

from __future__ import annotations

import ctypes
import multiprocessing
import pickle
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.rng import SecretRng
from ridotto.core.vector import Vector
from ridotto.errors import ConfigError
from ridotto.learn.trainer import Trainer
from ridotto.rounds.plan import Plan
from ridotto.simulate.clients import Clients
from ridotto.simulate.job import Job, Update, with_traceback
from ridotto.simulate.threads import keep_freed_memory, limit_process_to_one_thread
from ridotto.simulate.worker import Worker, pipeline_of

CLAIMS_PER_WORKER = 64
"""A job is cut into so many claims for each worker: few enough that claiming costs nothing, and enough that the last
one to finish keeps the others waiting for a hundredth of the job at most."""

READY = "ready"
"""What a worker says when it can work."""

FAILURE = "failure"
"""What a worker answers, with the error and its traceback, when a job failed."""


@dataclass(frozen=True)
class Setup:
    """Hold what a worker needs to train: sent once, or inherited."""

    trainer: Trainer
    clients: Clients
    plan: Plan
    rng: SecretRng
    batch: int


class Shared:
    """Hold the memory that all processes of a pool see.

    model: what clients receive. state: the algorithm's vectors beside it. totals: one partial sum a worker. kept: what
    clients keep, a row for each place in the job. next: the first place that nobody has claimed. training: the
    position of the client at work, by worker; -1 for none. done: clients that are done, by worker.
    """

    def __init__(self, context: BaseContext, workers: int, setup: Setup, state: Mapping[str, Vector]) -> None:
        parameters, length = setup.trainer.layout.length, pipeline_of(setup.plan, setup.trainer).length
        keeps = setup.plan.algorithm.build().stateful or setup.plan.feeds_back
        rows = setup.plan.cohort if keeps else 0
        self._shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "model": (np.dtype(np.float32), (parameters,)),
            "totals": (container(setup.plan.bits), (workers, length)),
            "kept": (np.dtype(np.float32), (rows, parameters)),
            "training": (np.dtype(np.int64), (workers,)),
            "done": (np.dtype(np.int64), (workers,)),
            **{f"state.{name}": (np.dtype(np.float32), vector.shape) for name, vector in state.items()},
        }
        self._memory = {
            name: context.RawArray(ctypes.c_char, max(1, dtype.itemsize * int(np.prod(shape, dtype=np.int64))))
            for name, (dtype, shape) in self._shapes.items()
        }
        self.next = context.Value(ctypes.c_int64, 0)

    def array(self, name: str) -> NDArray[Any]:
        """Return one of the arrays, as a view."""
        dtype, shape = self._shapes[name]
        count = int(np.prod(shape, dtype=np.int64))
        flat: NDArray[Any] = np.frombuffer(memoryview(self._memory[name]).cast("B"), dtype, count)
        return flat.reshape(shape)

    def state(self) -> dict[str, Vector]:
        """Return the algorithm's vectors, as views."""
        return {name[6:]: self.array(name) for name in self._shapes if name.startswith("state.")}

    def claim(self, count: int, size: int) -> tuple[int, int]:
        """Take the next places of a job of `count` clients, `size` of them at most: (begin, end), or an empty range."""
        with self.next.get_lock():
            begin = min(self.next.value, count)
            self.next.value = begin + size
        return begin, min(begin + size, count)


@dataclass(frozen=True)
class Work:
    """Order one job. job: without the vectors, which lie in shared memory. updates: to be returned one by one."""

    job: Job
    updates: bool = False


@dataclass(frozen=True)
class Finished:
    """Tell that a worker found no more clients to train. dropped, sparse_bytes: as in `Answer`."""

    dropped: Mapping[int, str]
    kept: tuple[int, ...]
    train_s: float
    sparse_bytes: int


def start_method(trainer: Trainer) -> str:
    """Return "fork" where that is safe and cheap, else "spawn"."""
    forkable = sys.platform == "linux" and getattr(trainer, "fork_safe", True) and "jax" not in sys.modules
    torch, ray = sys.modules.get("torch"), sys.modules.get("ray")
    on_gpu = torch is not None and torch.cuda.is_initialized()
    on_cluster = ray is not None and ray.is_initialized()  # its client runs threads that hold locks
    return "fork" if forkable and not on_gpu and not on_cluster else "spawn"


def start_worker(
    context: BaseContext, setup: Setup | Packed, shared: Shared, number: int
) -> tuple[BaseProcess, Connection]:
    """Start one process; return it and the parent's end of its pipe."""
    here, there = context.Pipe()
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=_serve, args=(setup, shared, number, there), name=f"ridotto-worker-{number}", daemon=True
    )
    with warnings.catch_warnings():
        # Python 3.12 warns of forking a process with threads. The child uses none of what they may hold: it
        # runs NumPy or torch with one thread of its own, and `start_method` keeps JAX out.
        warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
        process.start()
    there.close()
    return process, here


@dataclass(frozen=True)
class Packed:
    """Hold a setup that is sent to processes started anew. The bytes of its arrays lie in shared memory."""

    pickled: bytes
    memory: Any
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, setup: Setup, context: BaseContext) -> Packed:
        """Pack a setup. Raises ConfigError, with what can't be sent and what to do."""
        buffers: list[pickle.PickleBuffer] = []
        try:
            pickled = _dumps(setup, buffers)
        except Exception as error:
            raise ConfigError(
                f"trainer and clients can't be sent to other processes: {error}; define functions and classes at the "
                'top of a module, install cloudpickle, or take engine="inline"'
            ) from error
        views = [buffer.raw() for buffer in buffers]
        memory = context.RawArray(ctypes.c_char, max(1, sum(view.nbytes for view in views)))
        at, target = 0, memoryview(memory).cast("B")
        for view in views:
            target[at : at + view.nbytes] = view
            at += view.nbytes
        return cls(pickled, memory, tuple(view.nbytes for view in views))

    def unpack(self) -> Setup:
        """Return the setup; its arrays are views into the shared memory."""
        at, parts = 0, []
        for size in self.sizes:
            parts.append(memoryview(self.memory).cast("B")[at : at + size])
            at += size
        setup: Setup = pickle.loads(self.pickled, buffers=parts)  # noqa: S301 - from our own parent process
        return setup


def _dumps(setup: Setup, buffers: list[pickle.PickleBuffer]) -> bytes:
    try:
        # Optional: it also sends functions and classes of a script or a notebook, which pickle can't.
        import cloudpickle
    except ModuleNotFoundError:
        return pickle.dumps(setup, 5, buffer_callback=buffers.append)
    pickled: bytes = cloudpickle.dumps(setup, 5, buffer_callback=buffers.append)
    return pickled


def _serve(setup: Setup | Packed, shared: Shared, number: int, pipe: Connection) -> None:
    """Be a worker: carry out orders until the parent closes the pipe or is gone."""
    # Ctrl-C reaches every process of a terminal; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # SIGTERM is how the parent ends us, and a forked process inherits the script's handler, which may do anything else.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if isinstance(setup, Packed):
        limit_process_to_one_thread()
        setup = setup.unpack()
    else:
        # Forked from a process that has one thread for the time of the simulation: nothing needs to be looked for,
        # which would take locks that another thread of the parent may have held.
        keep_freed_memory()
    total: IntVector = shared.array("totals")[number]
    worker = Worker(setup.trainer, setup.clients, setup.plan, setup.rng, setup.batch, total)
    parent = cast(Any, multiprocessing.parent_process())
    pipe.send(READY)
    while True:
        if pipe not in wait([pipe, parent.sentinel]):
            return
        try:
            work = pipe.recv()
        except (EOFError, ConnectionError):
            return
        if work is None:
            return
        try:
            answer: Any = _carry_out(work, worker, shared, number, pipe)
        except Exception as error:
            answer = (FAILURE, *with_traceback(error))
        pipe.send(answer)


def _carry_out(work: Work, worker: Worker, shared: Shared, number: int, pipe: Connection) -> Finished:
    job, rows = work.job, shared.array("kept")
    kept = {int(position): rows[place] for place, position in enumerate(job.positions)} if len(rows) else {}
    worker.begin(replace(job, model=shared.array("model"), state=shared.state(), kept=kept))
    training, done = shared.array("training"), shared.array("done")
    done[number] = 0
    chunks = -(-len(job) // worker.batch)
    size = max(1, chunks // (len(training) * CLAIMS_PER_WORKER)) * worker.batch
    while True:
        begin, end = shared.claim(len(job), size)
        if begin == end:
            break
        for first in range(begin, end, worker.batch):
            last = min(first + worker.batch, end)
            training[number] = job.positions[first]
            if work.updates:
                for place, update in enumerate(worker.updates(first, last), first):
                    pipe.send((place, _sendable(update)))
            else:
                worker.train(first, last)
            done[number] += last - first
    training[number] = -1
    if len(rows):
        place_of = {int(position): place for place, position in enumerate(job.positions)}
        for position, vector in worker.kept.items():
            rows[place_of[position]] = vector
    return Finished(worker.dropped, tuple(worker.kept), worker.train_s, worker.sparse_bytes)


def _sendable(update: Update | Exception) -> Update | tuple[Exception, str]:
    return with_traceback(update) if isinstance(update, Exception) else update
