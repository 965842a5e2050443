"""The shipped checkpoint: half-precision (shadow) weights, batch norm and scales in one .npz.

A quantized network's file ends in .ckpt.npz, a full-precision one's in .float.npz and has the
weights' scales as well. The same content gives the same bytes. A quantized file determines every
integer of the exported network: only networks that half precision does not change (`snapped`) are
written.
"""

import copy
import json
from pathlib import Path

import numpy as np
import torch

from model.common.archive import Archive, ArchiveError, write_npz
from model.common.errors import UserError, printable
from model.network.contract import is_name, show
from train import clipq
from train.fold import FoldedConv, FoldError, fold_network
from train.nin import NIN
from train.run_files import Fields, StateError, parse_json
from train.segments import LEVELS, Segments

CLASSES = {"cifar10": 10, "cifar100": 100}
BN = ("weight", "bias", "running_mean", "running_var")
MAX_META = 1 << 20  # bytes
TINY = np.finfo(np.float32).tiny
KINDS = {True: "quantized", False: "full-precision"}


class CheckpointError(UserError, ValueError):
    """A damaged file, one of another kind, or a network that a file cannot hold; it is named."""


def halves(weights: torch.Tensor) -> torch.Tensor:
    """Float16 weights whose largest magnitude is 1: the smallest normal float16 is 6e-5."""
    peak = weights.abs().max()
    return (weights / torch.where(peak > 0, peak, 1.0)).half()


@torch.no_grad()
def snapped(net: NIN) -> NIN:
    """A copy of the quantized `net` with the weights that its file gives back."""
    net = copy.deepcopy(net)
    for _, block in net.blocks():
        block.conv.weight.copy_(halves(block.conv.weight))
    return net


def write(net: NIN, dataset: str, path: Path, facts: dict) -> None:
    """Write `net`. `facts` (JSON) tells how it was made.

    Raises CheckpointError unless all numbers are finite and reading gives back every integer of a
    quantized network.
    """
    try:
        arrays = _arrays(net, {"dataset": dataset, **facts})
        restored, _ = _network(arrays, arrays)
        if net.mode != "float":
            _compare(fold_network(net), fold_network(restored))
    except (CheckpointError, FoldError) as error:
        raise CheckpointError(f"{printable(path)} is not written: {error}") from error
    write_npz(path, arrays)


def read(path: Path) -> tuple[NIN, dict]:
    """(network in mode "float" or "fake", facts). Raises OSError, or CheckpointError."""
    try:
        with Archive(path) as archive:
            if archive.size("meta") > MAX_META:
                raise CheckpointError(f"meta has more than {MAX_META:,} bytes")
            return _network(archive, archive.names)
    except (CheckpointError, ArchiveError) as error:
        reason = f"not a checkpoint of the NIN, or damaged: {error}"
        raise CheckpointError(f"{printable(path)}: {reason}") from error


def read_for(path: Path, dataset: str, quantized: bool | None = None) -> tuple[NIN, dict]:
    """As `read`. Raises CheckpointError for another data set or the other kind of network, too."""
    net, facts = read(path)
    if facts["dataset"] != dataset or quantized not in (None, net.mode != "float"):
        wanted = "" if quantized is None else f"{KINDS[quantized]} "
        raise CheckpointError(
            f"{printable(path)} is not a {wanted}network for {dataset}: it is a "
            f"{KINDS[net.mode != 'float']} one for {facts['dataset']}"
        )
    return net, facts


def _compare(ours, theirs):
    for name in ours:
        for field, a, b in zip(FoldedConv._fields, ours[name], theirs[name]):
            if not np.array_equal(a, b):
                raise CheckpointError(f"layer {name}: half precision would change its {field}")


def _arrays(net, facts) -> dict:
    arrays = {"meta": np.array(json.dumps(facts, sort_keys=True))}
    for name, block in net.blocks():
        weights = block.conv.weight.detach().cpu()
        arrays[f"{name}.weight"] = halves(weights).numpy()
        if net.mode == "float":
            arrays[f"{name}.scale"] = np.float32(weights.abs().max())
        else:
            for key, value in _quantizer_arrays(block.quantizer).items():
                arrays[f"{name}.{key}"] = value
            arrays[f"{name}.steps"] = np.float32(block.steps.cpu())
        for key in BN:
            value = getattr(block.bn, key).detach().cpu().numpy()
            arrays[f"{name}.bn.{key}"] = value.astype(np.float32)
    return arrays


@torch.no_grad()
def _network(arrays, names) -> tuple[NIN, dict]:
    facts = _facts(arrays)
    net, taken = NIN(CLASSES[facts["dataset"]]).eval(), {"meta"}
    net.mode = "float" if "conv1.scale" in arrays else "fake"

    def take(key, dtype, shape=(), low=-np.inf, high=np.inf):
        taken.add(key)
        return _checked(arrays, key, dtype, shape, low, high)

    for name, block in net.blocks():
        weights = take(f"{name}.weight", np.float16, block.conv.weight.shape)
        block.conv.weight.copy_(torch.from_numpy(weights.astype(np.float32)))
        if net.mode == "float":
            block.conv.weight *= float(take(f"{name}.scale", np.float32, low=0))
        else:
            block.quantizer = _quantizer(name, arrays, take)
            block.steps.fill_(float(take(f"{name}.steps", np.float32, low=TINY)))
        for key in BN:
            target = getattr(block.bn, key)
            low = 0 if key == "running_var" else -np.inf
            array = take(f"{name}.bn.{key}", np.float32, target.shape, low)
            target.copy_(torch.from_numpy(array.astype(np.float32)))
    if other := sorted(set(names) - taken):
        raise CheckpointError(f"array {printable(other[0][:80])} is unknown")
    return net, facts


def _facts(arrays) -> dict:
    meta = _checked(arrays, "meta", None, ())
    try:
        fields = Fields("meta", parse_json(str(meta)))
        fields.version()
        classes = CLASSES[fields.text("dataset", CLASSES)]
        if "seed" in fields.table:
            fields.count("seed")
        if "validation" in fields.table:
            fields.number("validation", 0, 1)
    except StateError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"meta: {error}") from error
    names = fields.table.get("classes", [])
    known = isinstance(names, list) and all(map(is_name, names))
    if not known or len(names) not in (0, classes):
        raise CheckpointError(f"meta: classes must be a list of {classes} names, not {show(names)}")
    return fields.table


def _checked(arrays, key, dtype, shape, low=-np.inf, high=np.inf):
    """The array `key`, which must be of this type (None: text) and shape, and in low..high."""
    if key not in arrays:
        raise CheckpointError(f"array {key} is missing")
    array = arrays[key]
    kind = array.dtype.kind == "U" if dtype is None else array.dtype.newbyteorder("=") == dtype
    if not kind or array.shape != tuple(shape):
        raise CheckpointError(
            f"array {key} must be {np.dtype(dtype or str).name} {list(shape)}, "
            f"not {array.dtype} {list(array.shape)}"
        )
    if dtype is not None and not (np.isfinite(array) & (low <= array) & (array <= high)).all():
        raise CheckpointError(f"array {key} must hold finite numbers in {low:g}..{high:g}")
    return array


def _quantizer_arrays(quantizer) -> dict:
    if isinstance(quantizer, Segments):
        return {"edges": np.array(quantizer.edges), "zero": np.int64(quantizer.zero)}
    if isinstance(quantizer, clipq.Setting):
        return {"clip": np.float64(quantizer.clip)}
    raise CheckpointError(f"a checkpoint has no place for {quantizer}")


def _quantizer(name, arrays, take):
    if f"{name}.edges" not in arrays:
        clip = take(f"{name}.clip", np.float64, low=0, high=np.nextafter(1, 0))
        return clipq.Setting(clip=float(clip))
    edges = take(f"{name}.edges", np.float64, (LEVELS - 1,))
    if not (np.diff(edges) > 0).all():
        raise CheckpointError(f"array {name}.edges must ascend, not {edges.tolist()}")
    zero = take(f"{name}.zero", np.int64, low=0, high=LEVELS - 1)
    return Segments(tuple(edges.tolist()), int(zero))
