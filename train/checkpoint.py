"""The shipped checkpoint: half-precision (shadow) weights, batch norm and scales in one .npz.

A quantized network's file ends in .ckpt.npz, a full-precision one's in .float.npz and has the
weights' scales as well. `meta` describes the network; without a description it is the CIFAR NIN.
The same content gives the same bytes. A quantized file determines every integer of the exported
network: only networks that half precision does not change (`snapped`) are written.
"""

import copy
import json
from pathlib import Path

import numpy as np
import torch

from model.common.archive import Archive, ArchiveError, write_npz
from model.common.errors import UserError, printable
from model.network.contract import is_name, show
from train import spec
from train.files import Fields, StateError, parse_json
from train.net import Net
from train.nets.nin import NIN
from train.quantize import clipq
from train.quantize.baselines import FixedGain
from train.quantize.fold import FoldedConv, FoldError, fold_network
from train.quantize.segments import LEVELS, Segments
from train.trace import trace

BN = ("weight", "bias", "running_mean", "running_var")
MAX_META = 1 << 20  # bytes
TINY = np.finfo(np.float32).tiny
# Of files without a description: (classes, mean colour, input integers per step of a pixel).
CIFAR = {
    "cifar10": (10, (125.307, 122.950, 113.865), 0.9),
    "cifar100": (100, (129.304, 124.070, 112.434), 0.885),
}
CIFAR_UNIT = 57.0


class CheckpointError(UserError, ValueError):
    """A damaged file, one of another kind, or a network that a file cannot hold; it is named."""


def cifar_nin(dataset: str, width: float = 1.0) -> Net:
    """The NIN of files without a description, for "cifar10" or "cifar100", with new weights."""
    classes, mean, step = CIFAR[dataset]
    source = {"shape": [3, 32, 32], "scale": [step] * 3, "offset": [-step * m for m in mean]}
    return trace(NIN(classes, width), {**source, "unit": CIFAR_UNIT}).eval()


def halves(weights: torch.Tensor) -> torch.Tensor:
    """Float16 weights whose largest magnitude is 1: the smallest normal float16 is 6e-5."""
    peak = weights.abs().max()
    return (weights / torch.where(peak > 0, peak, 1.0)).half()


@torch.no_grad()
def snapped(net: Net) -> Net:
    """A copy of the quantized `net` with the weights that its file gives back."""
    net = copy.deepcopy(net)
    for _, block in net.blocks():
        block.conv.weight.copy_(halves(block.conv.weight))
    return net


def write(net: Net, path: Path, facts: dict) -> None:
    """Write `net`. `facts` (JSON) tells how it was made.

    Raises CheckpointError unless all numbers are finite and reading gives back every integer of a
    quantized network.
    """
    try:
        arrays = _arrays(net, facts if "dataset" in facts else {**facts, "net": net.spec})
        restored, _ = _network(arrays, arrays)
        if net.mode != "float":
            _compare(fold_network(net), fold_network(restored))
    except (CheckpointError, FoldError) as error:
        raise CheckpointError(f"{printable(path)} is not written: {error}") from error
    write_npz(path, arrays)


def read(path: Path) -> tuple[Net, dict]:
    """(network in mode "float" or "fake", facts). Raises OSError, or CheckpointError."""
    try:
        with Archive(path) as archive:
            if archive.size("meta") > MAX_META:
                raise CheckpointError(f"meta has more than {MAX_META:,} bytes")
            return _network(archive, archive.names)
    except (CheckpointError, ArchiveError) as error:
        reason = f"not a checkpoint, or damaged: {error}"
        raise CheckpointError(f"{printable(path)}: {reason}") from error


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
    for name, node in net.nodes.items():
        if node.spec["op"] == "add" and net.mode != "float":
            arrays[f"{name}.steps"] = np.float32(node.steps.cpu())
            arrays[f"{name}.ratio"] = node.ratio.cpu().numpy()
    return arrays


@torch.no_grad()
def _network(arrays, names) -> tuple[Net, dict]:
    facts = _facts(arrays)
    net = Net(copy.deepcopy(facts["net"])) if "net" in facts else cifar_nin(facts["dataset"])
    net.eval()
    _check_classes(facts, net)
    net.mode = "float" if f"{net.blocks()[0][0]}.scale" in arrays else "fake"
    taken = {"meta"}

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
    for name, node in net.nodes.items():
        if node.spec["op"] == "add" and net.mode != "float":
            node.steps.fill_(float(take(f"{name}.steps", np.float32, low=TINY)))
            ratio = take(f"{name}.ratio", np.float64, (2,), low=TINY)
            node.ratio.copy_(torch.from_numpy(ratio.astype(np.float64)))
    if other := sorted(set(names) - taken):
        raise CheckpointError(f"array {printable(other[0][:80])} is unknown")
    return net, facts


def _facts(arrays) -> dict:
    meta = _checked(arrays, "meta", None, ())
    try:
        fields = Fields("meta", parse_json(str(meta)))
        fields.version()
        if "net" in fields.table:
            spec.check(fields.table["net"])
        else:
            fields.text("dataset", CIFAR)
        if "seed" in fields.table:
            fields.count("seed")
        if "validation" in fields.table:
            fields.number("validation", 0, 1)
    except (StateError, spec.SpecError) as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"meta: {error}") from error
    return fields.table


def _check_classes(facts, net):
    count, names = spec.check(net.spec)[net.last][0], facts.get("classes", [])
    known = isinstance(names, list) and all(map(is_name, names))
    if not known or len(names) not in (0, count):
        raise CheckpointError(f"meta: classes must be a list of {count} names, not {show(names)}")


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
        arrays = {"edges": np.array(quantizer.edges), "zero": np.int64(quantizer.zero)}
        return {**arrays, "affine": np.bool_(True)} if quantizer.affine else arrays
    if isinstance(quantizer, clipq.Setting):
        return {"clip": np.float64(quantizer.clip)}
    if isinstance(quantizer, FixedGain):
        clip, point = quantizer.setting.clip, quantizer.setting.fraction_bits
        gain = np.float64(quantizer.rms)
        return {"clip": np.float64(clip), "gain": gain, "fraction_bits": np.int64(point)}
    raise CheckpointError(f"a checkpoint has no place for {quantizer}")


def _quantizer(name, arrays, take):
    if f"{name}.edges" not in arrays:
        clip = float(take(f"{name}.clip", np.float64, low=0, high=np.nextafter(1, 0)))
        if f"{name}.gain" not in arrays:
            return clipq.Setting(clip)
        point = int(take(f"{name}.fraction_bits", np.int64, low=1, high=7))
        gain = float(take(f"{name}.gain", np.float64, low=TINY))
        return FixedGain(clipq.Setting(clip, fraction_bits=point), gain)
    edges = take(f"{name}.edges", np.float64, (LEVELS - 1,))
    if not (np.diff(edges) > 0).all():
        raise CheckpointError(f"array {name}.edges must ascend, not {edges.tolist()}")
    zero = int(take(f"{name}.zero", np.int64, low=0, high=LEVELS - 1))
    affine = f"{name}.affine" in arrays and bool(take(f"{name}.affine", np.bool_, low=1))
    return Segments(tuple(edges.tolist()), zero, affine)
