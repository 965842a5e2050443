"""Weight quantizers, as frozen dataclasses, and how a state describes them."""

import math
from dataclasses import fields

from train.quantize.baselines import Binary, FixedGain, FixedPoint, Ternary
from train.quantize.clipq import Setting
from train.quantize.kmeans import KMeans
from train.quantize.segments import Segments

KINDS = {
    kind.__name__: kind
    for kind in (Setting, Segments, KMeans, FixedPoint, Ternary, Binary, FixedGain)
}
# What a field may hold, by the name of its type.
ALLOWED = {
    "int": lambda v: type(v) is int and abs(v) < 1000,
    "float": lambda v: type(v) in (int, float) and math.isfinite(v),
    "bool": lambda v: type(v) is bool,
    "int | None": lambda v: v is None or type(v) is int and 1 <= v <= 7,
    "Setting": lambda v: isinstance(v, Setting),
    "tuple": lambda v: isinstance(v, tuple) and len(v) == 3 and all(map(ALLOWED["float"], v)),
}


def describe(quantizer) -> dict:
    """A quantizer as plain values."""
    values = {one.name: getattr(quantizer, one.name) for one in fields(quantizer)}
    values = {k: describe(v) if isinstance(v, Setting) else v for k, v in values.items()}
    return {"kind": type(quantizer).__name__, **values}


def restore(values: dict):
    """The quantizer that `describe` describes. Raises ValueError for anything else."""
    if not isinstance(values, dict) or values.get("kind") not in list(KINDS):
        raise ValueError(f"no quantizer: {str(values)[:100]}")
    kind = KINDS[values["kind"]]
    table = {k: restore(v) if isinstance(v, dict) else v for k, v in values.items() if k != "kind"}
    table = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    for one in fields(kind):
        name = getattr(one.type, "__name__", str(one.type)).rpartition(".")[2]
        if one.name not in table or not ALLOWED[name](table.pop(one.name)):
            raise ValueError(f"{values['kind']}: {one.name} is wrong or missing")
    if table:
        raise ValueError(f"{values['kind']}: {str(list(table)[0])[:80]} is unknown")
    return kind(**{k: _plain(v) for k, v in values.items() if k != "kind"})


def _plain(value):
    if isinstance(value, dict):
        return restore(value)
    return tuple(value) if isinstance(value, list) else value
