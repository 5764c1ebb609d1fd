"""Vectors of xaynet's PET: orders of groups, masks, encodings, who does what, one round, bodies and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import product

from ridotto.crypto.chacha20 import ChaCha20Stream
from ridotto.crypto.sodium import BoxKey, SigningKey, seal
from ridotto.errors import RoundFailedError
from ridotto.secagg.xaynet.bincode import RoundParameters, encode_floats, encode_model
from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, MaskConfigPair, Models
from ridotto.secagg.xaynet.derive import MaskObject, derive_mask
from ridotto.secagg.xaynet.elements import from_integers
from ridotto.secagg.xaynet.encode import encode_weights, mask_model, unmask
from ridotto.secagg.xaynet.sortition import is_eligible, next_seed, task_of
from vectors.crypto import refused
from vectors.pairwise_steps import GivenBytes
from vectors.xaynet_refusals import body_refusals, box_refusals, piece_refusals, seed_refusals
from vectors.xaynet_round import MODELS, SCALARS, SETTINGS, Player, coordinator_key, record

DEFAULT = MaskConfig()
SEED = bytes(range(32))
WIDE = MaskConfig(Group.PRIME, Data.F32, Bound.B6, Models.M3)
CONFIGS = (
    MaskConfigPair(),
    MaskConfigPair(WIDE, DEFAULT),
    MaskConfigPair(MaskConfig(Group.POWER2), MaskConfig(Group.INTEGER)),
    MaskConfigPair(MaskConfig(Group.INTEGER, Data.F64, Bound.BMAX, Models.M12), MaskConfig(data=Data.I64)),
    MaskConfigPair(MaskConfig(Group.POWER2, Data.I32, Bound.B2, Models.M3), MaskConfig(data=Data.F64, bound=Bound.B4)),
)
"""The default; an order above 2^63; powers of two, whose draws may be longer than their numbers; very long ones."""


def build() -> dict[str, object]:
    """Return everything that is in xaynet.json."""
    return {
        "protocol": "xaynet",
        "page": "docs/protocols/xaynet.md",
        "orders": [order_row(MaskConfig(*choice)) for choice in product(Group, Data, Bound, Models)],
        "streams": [stream(bytes(32)), stream(SEED)],
        "masks": [mask_row(seed, configs) for configs in CONFIGS for seed in (bytes(32), SEED)],
        "weights": [weights_row(*case) for case in WEIGHTS],
        "weight_refusals": weight_refusals(),
        "means": [mean_row(configs) for configs in CONFIGS],
        "mean_refusals": mean_refusals(),
        "eligible": eligible(),
        "tasks": [task_row(bytes([number]) * 32) for number in range(1, 6)],
        "seeds": seed_rows(),
        "boxes": [box(b""), box(b"message")],
        **round_rows(),
        "models": models(),
        "box_refusals": box_refusals(),
        "piece_refusals": piece_refusals(),
        "seed_refusals": seed_refusals(),
        "body_refusals": body_refusals(),
    }


def order_row(config: MaskConfig) -> list[object]:
    """Return a configuration's four bytes, order in hexadecimal digits, and bytes of a number and of a draw."""
    return [config.to_bytes().hex(), f"{config.order:x}", config.number_bytes, config.draw_bytes]


def stream(seed: bytes) -> dict[str, str]:
    """Return the beginning of a ChaCha20 stream, across its second block."""
    data = bytearray(80)
    ChaCha20Stream(seed).fill(memoryview(data))
    return {"seed": seed.hex(), "bytes": data.hex()}


def _digits(numbers: Sequence[int]) -> list[str]:
    return [str(number) for number in numbers]


def mask_row(seed: bytes, configs: MaskConfigPair) -> dict[str, object]:
    """Return the mask of a seed."""
    mask = derive_mask(seed, 4, configs)
    return {**_named(configs), "seed": seed.hex(), "unit": str(mask.unit), "vect": _digits(mask.vect.tolist())}


def _named(configs: MaskConfigPair) -> dict[str, object]:
    return {"vect_config": configs.vect.to_bytes().hex(), "unit_config": configs.unit.to_bytes().hex()}


WEIGHTS: tuple[tuple[MaskConfigPair, tuple[float | int, ...], Fraction], ...] = (
    (CONFIGS[0], (0.0, -0.0, 1.0, -1.0, 0.1, -0.1, 1e-10, -1e-10, 1e-11, -1e-11, 7.0, -7.0, 5e-324), Fraction(1)),
    (CONFIGS[0], (0.3, -0.3, 1.0, 3.0, -3.0), Fraction(1, 3)),
    (CONFIGS[0], (0.3, -0.3, 1.0), Fraction(5)),
    (CONFIGS[0], (0.3, 1.0), Fraction(0)),
    (CONFIGS[1], (123456.789, -1e6, 1e7, 1e-10), Fraction(1)),
    (CONFIGS[3], (1.7976931348623157e308, -1.7976931348623157e308, 5e-324, 0.1), Fraction(1, 1)),
    (CONFIGS[4], (100, -100, 101, 3, -3), Fraction(2, 3)),
)
"""Configurations, weights of a model, and its scalar."""


def weights_row(configs: MaskConfigPair, weights: tuple[float | int, ...], scalar: Fraction) -> dict[str, object]:
    """Return a model in its groups, before and after it is masked."""
    masked = mask_model(weights, scalar, SEED, configs)
    cut = min(scalar, Fraction(configs.unit.add_shift))
    unit = masked.unit - derive_mask(SEED, 1, configs).unit
    return {
        **_named(configs),
        "weights": list(weights),
        "scalar": str(scalar),
        "elements": _digits(encode_weights(weights, cut, configs.vect).tolist()),
        "unit": str(unit % configs.unit.order),
        "seed": SEED.hex(),
        "masked": _digits(masked.vect.tolist()),
        "masked_unit": str(masked.unit),
    }


def weight_refusals() -> list[dict[str, object]]:
    """Return models that are none. JSON has no such numbers: they are named."""
    cases = {"infinity": (float("inf"), 1.0), "nan": (float("nan"), 1.0), "a negative scalar": (0.5, -1.0)}
    return [
        {"name": name, "why": refused(partial(mask_model, [weight], scalar, SEED, MaskConfigPair()))}
        for name, (weight, scalar) in cases.items()
    ]


def mean_row(configs: MaskConfigPair) -> dict[str, object]:
    """Return the mean of three models, from their sum and the sum of their masks."""
    seeds = [bytes([number]) * 32 for number in range(3)]
    total, masks = MaskObject.zero(configs, 4), MaskObject.zero(configs, 4)
    for model, scalar, seed in zip(MODELS, SCALARS, seeds, strict=True):
        total.add(mask_model(model, scalar, seed, configs))
        masks.add(derive_mask(seed, 4, configs))
    mean = unmask(total, masks, 3)
    return {
        **_named(configs),
        "models": 3,
        "sum": _digits(total.vect.tolist()),
        "sum_unit": str(total.unit),
        "mask": _digits(masks.vect.tolist()),
        "mask_unit": str(masks.unit),
        "scalars": str(mean.scalars),
        "mean": [str(number) for number in mean.to_fractions()],
    }


def mean_refusals() -> list[dict[str, object]]:
    """Return sums that no models have, in the default configuration, with a mask of zeros."""
    order, middle = DEFAULT.order, DEFAULT.add_shift * DEFAULT.exp_shift
    zero = MaskObject.zero(MaskConfigPair(), 1)
    cases = {
        "an element above three models": (6 * middle + 1, 4 * middle),
        "an element below zero": (order - 1, 4 * middle),
        "scalars above three": (3 * middle, 6 * middle + 1),
        "scalars below zero": (3 * middle, 3 * middle - 1),
        "scalars of zero": (3 * middle, 3 * middle),
    }
    rows: list[dict[str, object]] = []
    for name, (element, unit) in cases.items():
        total = MaskObject(MaskConfigPair(), from_integers([element], order), unit)
        try:
            unmask(total, zero, 3)
        except RoundFailedError as error:
            why = str(error)
            rows.append(
                {"name": name, "models": 3, "sum": str(element), "unit": str(unit), "code": error.code, "why": why}
            )
    return rows


def eligible() -> list[dict[str, object]]:
    """Return signatures, chances, and whether the one is within the other."""
    key = SigningKey(bytes([9]) * 32)
    rows: list[dict[str, object]] = []
    for number in range(4):
        signature = key.sign(bytes([number]))
        for chance in (0.0, 0.001, 0.25, 0.5, 0.75, 1.0):
            rows.append({"signature": signature.hex(), "chance": chance, "eligible": is_eligible(signature, chance)})
    return rows


def task_row(private: bytes) -> dict[str, object]:
    """Return what the owner of a key does in a round."""
    parameters = RoundParameters(bytes(32), 0.5, 0.5, SEED, MaskConfigPair(), 4)
    task = task_of(SigningKey(private), parameters)
    return {
        "private": private.hex(),
        "public": SigningKey(private).public.hex(),
        "seed": SEED.hex(),
        "sum": 0.5,
        "update": 0.5,
        "sum_signature": task.sum_signature.hex(),
        "update_signature": task.update_signature.hex(),
        "role": task.role.value,
    }


def seed_rows() -> list[dict[str, object]]:
    """Return seeds of rounds: each follows from the one before and the new private key."""
    rows: list[dict[str, object]] = []
    for seed, private, chances in ((bytes(32), b"\x01" * 32, (0.01, 0.1)), (SEED, b"\x02" * 32, (0.5, 0.9))):
        following = next_seed(seed, private, *chances)
        shown = {"seed": seed.hex(), "private": private.hex(), "sum": chances[0], "update": chances[1]}
        rows.append({**shown, "next": following.hex()})
    return rows


def box(message: bytes) -> dict[str, str]:
    """Return a sealed box from a given ephemeral key."""
    receiver, ephemeral = BoxKey(bytes([5]) * 32), bytes([6]) * 32
    return {
        "receiver_private": receiver.to_bytes().hex(),
        "receiver_public": receiver.public.hex(),
        "ephemeral_private": ephemeral.hex(),
        "message": message.hex(),
        "box": seal(message, receiver.public, GivenBytes(ephemeral)).hex(),
    }


def round_rows() -> dict[str, object]:
    """Return the recorded round."""
    found, key = record(), coordinator_key()
    return {
        "round": {
            "coordinator_private": key.to_bytes().hex(),
            "length": SETTINGS.length,
            "sum": SETTINGS.sum_chance,
            "update": SETTINGS.update_chance,
            **_named(SETTINGS.configs),
            "summers": [_player(one) for one in found.summers],
            "updaters": [
                {**_player(one), "weights": list(model), "scalar": str(scalar)}
                for one, model, scalar in zip(found.updaters, MODELS, SCALARS, strict=True)
            ],
            "idle": [_player(one) for one in found.idle],
        },
        "messages": [
            {"from": sender, "box": sealed.hex(), "message": key.open(sealed).hex()} for sender, sealed in found.boxes
        ],
        "bodies": {name: body.hex() for name, body in found.bodies.items()},
        "mean": [] if found.done is None else [str(number) for number in found.done.mean.to_fractions()],
    }


def _player(one: Player) -> dict[str, object]:
    """drawn: its ephemeral key; of an updater the mask's seed and a key for each sealed seed; keys for its boxes."""
    drawn = [part.hex() for part in one.rng.drawn]
    return {"private": one.key.hex(), "public": one.one.public.hex(), "drawn": drawn}


def models() -> list[dict[str, object]]:
    """Return bodies of models: exact ratios, reduced, and floats."""
    ratios = [(0, 5), (1, 3), (-4, 6), (7, -2), (2**70, 3**50)]
    floats = [0.0, -0.0, 0.1, -1.5, 5e-324, 1e300]
    exact = [str(Fraction(top, bottom)) for top, bottom in ratios]
    return [
        {"weights": [], "body": encode_model((), ()).hex()},
        {"weights": exact, "body": encode_model(*zip(*ratios, strict=True)).hex()},
        {"weights": [str(Fraction(number)) for number in floats], "body": encode_floats(floats).hex()},
    ]
