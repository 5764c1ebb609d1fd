"""The participant's half of PET, without a network: for tests, and for those who want to join a xaynet coordinator.

    parameters   = GET /params                begin(parameters) -> Role
    summer       POST /message  each of sum_boxes();   later GET /seeds?pk=...,  POST each of sum2_boxes(seeds)
    updater      GET /sums,     POST each of update_boxes(sums, weights, scalar)

Stricter than the original's client: a summer that is shown fewer seeds than `least_updates` gives out no mask, because
a mask of one update opens it. Against a coordinator that makes up the others this does not help.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import final

from ridotto.core.rng import Rng
from ridotto.crypto.seal import SealError
from ridotto.crypto.sodium import BoxKey, SigningKey, seal
from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.secagg.xaynet.bincode import RoundParameters
from ridotto.secagg.xaynet.derive import MaskObject, add_masks
from ridotto.secagg.xaynet.encode import Weights, mask_model
from ridotto.secagg.xaynet.settings import LEAST_UPDATES
from ridotto.secagg.xaynet.sortition import Role, Task, task_of
from ridotto.secagg.xaynet.wire import SEED_BYTES, Payload, Sum, Sum2, Update, seal_payload


@final
class XaynetParticipant:
    """Take part in rounds.

    key: what the participant is known by. rng: secret; for ephemeral keys, seeds and boxes. least_updates: a summer
    gives out no mask of fewer. most_bytes: longest body of a request, 0 for no limit.
    """

    def __init__(self, key: SigningKey, rng: Rng, *, least_updates: int = LEAST_UPDATES, most_bytes: int = 0) -> None:
        self._key = key
        self._rng = rng
        self._least_updates = least_updates
        self._most_bytes = most_bytes
        self._round: tuple[RoundParameters, Task, BoxKey] | None = None

    @property
    def public(self) -> bytes:
        """Return the signing key, 32 bytes, by which `GET /seeds` asks."""
        return self._key.public

    def begin(self, parameters: RoundParameters) -> Role:
        """Begin a round, forget the one before, and return what there is to do."""
        task = task_of(self._key, parameters)
        self._round = (parameters, task, BoxKey.generate(self._rng))
        return task.role

    def sum_boxes(self) -> list[bytes]:
        """Return the bodies that announce a summer. Raises LocalProtocolError in another role."""
        _, task, ephemeral = self._in_role(Role.SUM)
        return self._boxes(Sum(task.sum_signature, ephemeral.public))

    def update_boxes(self, sums: Mapping[bytes, bytes], weights: Weights, scalar: Fraction | float) -> list[bytes]:
        """Return the bodies that bring a model, masked.

        sums: the summers' ephemeral keys by their signing keys. weights: as many as the round's parameters say.
        Raises DataError if a weight or the scalar does not fit, PeerProtocolError if a summer's key is of low order,
        LocalProtocolError in another role or with another number of weights.
        """
        parameters, task, _ = self._in_role(Role.UPDATE)
        if len(weights) != parameters.length:
            raise LocalProtocolError(f"the model has {len(weights)} weights, the round asks for {parameters.length}")
        seed = self._rng.bytes(SEED_BYTES)
        masked = mask_model(weights, scalar, seed, parameters.configs)
        seeds = {}
        for summer, ephemeral in sums.items():
            try:
                seeds[summer] = seal(seed, ephemeral, self._rng)
            except SealError as error:
                raise PeerProtocolError(summer.hex(), "nothing can be sealed for its ephemeral key") from error
        return self._boxes(Update(task.sum_signature, task.update_signature, masked, seeds))

    def sum2_boxes(self, seeds: Mapping[bytes, bytes]) -> list[bytes]:
        """Return the bodies that bring the sum of the masks. seeds: sealed for this summer, by updater.

        Raises PeerProtocolError if they are too few or one does not open, LocalProtocolError in another role.
        """
        parameters, task, ephemeral = self._in_role(Role.SUM)
        if len(seeds) < self._least_updates:
            raise PeerProtocolError("coordinator", f"it asks for the mask of {len(seeds)} updates: too few")
        mask = MaskObject.zero(parameters.configs, parameters.length)
        add_masks(mask, [_open_seed(updater, box, ephemeral) for updater, box in seeds.items()])
        return self._boxes(Sum2(task.sum_signature, mask))

    def _in_role(self, role: Role) -> tuple[RoundParameters, Task, BoxKey]:
        if self._round is None or self._round[1].role is not role:
            raise LocalProtocolError(f"this participant has not the role {role} in a round")
        return self._round

    def _boxes(self, payload: Payload) -> list[bytes]:
        if self._round is None:
            raise LocalProtocolError("no round has begun")
        return seal_payload(payload, self._key, self._round[0].key, self._rng, self._most_bytes)


def _open_seed(updater: bytes, box: bytes, ephemeral: BoxKey) -> bytes:
    try:
        seed = ephemeral.open(box)
    except SealError as error:
        raise PeerProtocolError(updater.hex(), "the seed that it sealed does not open") from error
    if len(seed) != SEED_BYTES:
        raise PeerProtocolError(updater.hex(), f"the seed that it sealed has {len(seed)} bytes, not {SEED_BYTES}")
    return seed
