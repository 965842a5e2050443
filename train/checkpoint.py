"""The shipped checkpoint: half-precision (shadow) weights, batch norm and scales in one .npz.

A quantized network's file ends in .ckpt.npz, a full-precision one's in .float.npz and has the
weights' scales as well. `meta` describes the network; without a description it is the CIFAR NIN.
The same content gives the same bytes. A quantized file determines every integer of the exported
network: only networks that half precision does not change (`snapped`) are written.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.common.archive import Archive, write_npz
from model.common.errors import UserError, printable
from model.network import Network, NetworkError, save_network
from train.net import Add, Net
from train.nets.nin import NIN
from train.quantize import ClipQ, FixedGain, Quantizer, Segments
from train.quantize.fold import FoldError, to_network
from train.quantize.start import halves
from train.trace import trace

ZOO = Path(__file__).resolve().parent.parent / "model" / "zoo"
SUFFIX = ".ckpt.npz"
BN = ("weight", "bias", "running_mean", "running_var")
MAX_META = 1 << 20  # bytes
MAX_WEIGHTS = 1 << 28
TINY = float(np.finfo(np.float32).tiny)
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


@torch.no_grad()
def snapped(net: Net) -> Net:
    """A copy of the quantized `net` with the weights that its file gives back."""
    net = copy.deepcopy(net)
    for _, block in net.blocks():
        block.conv.weight.copy_(halves(block.conv.weight))
    return net


def write(net: Net, path: Path, facts: dict[str, Any]) -> None:
    """Write `net`. `facts` (JSON) tells how it was made.

    Raises CheckpointError unless all numbers are finite and reading gives back every integer of a
    quantized network.
    """
    facts = facts if "dataset" in facts else {**facts, "net": net.spec}
    try:
        arrays = {"meta": np.array(json.dumps(facts, sort_keys=True)), **_arrays(net)}
        restored, _ = _network(arrays)
        if net.mode != "float":
            _compare(to_network(net), to_network(restored))
    except (UserError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{printable(path)} is not written: {error}") from error
    write_npz(path, arrays)


def read(path: Path) -> tuple[Net, dict[str, Any]]:
    """(network in mode "float" or "fake", facts). Raises OSError, or CheckpointError."""
    try:
        with Archive(path) as archive:
            if archive.size("meta") > MAX_META:
                raise CheckpointError(f"meta has more than {MAX_META:,} bytes")
            return _network({name: archive[name] for name in archive.names})
    except OSError:
        raise
    except Exception as error:  # an arbitrary description makes any part of a network fail
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:500]
        message = f"{printable(path)}: not a checkpoint, or damaged: {reason}"
        raise CheckpointError(message) from error


def export(source: Path, target: Path) -> Network:
    """Write the network of checkpoint `source` to `target`, whole or not at all, and return it.

    Raises UserError that names `source`.
    """
    net, facts = read(source)
    if net.mode == "float":
        raise UserError(
            f"{printable(source)} is in full precision, but only quantized networks "
            f"(*{SUFFIX}) can be exported"
        )
    name = str(facts.get("name", f"nin-{facts.get('dataset')}"))
    try:
        network = to_network(net, name, tuple(facts.get("classes", ())))
    except (FoldError, NetworkError) as error:
        raise UserError(f"{printable(source)}: {error}") from error
    save_network(network, target)
    return network


def _compare(ours: Network, theirs: Network) -> None:
    for a, b in zip(ours.layers, theirs.layers):
        for field in ("index", "codebook", "bias", "mult", "shift"):
            if not np.array_equal(getattr(a, field), getattr(b, field)):
                raise CheckpointError(f"layer {a.name}: half precision would change its {field}")


def _arrays(net: Net) -> dict[str, np.ndarray]:
    arrays: dict[str, Any] = {}
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
            arrays[f"{name}.bn.{key}"] = getattr(block.bn, key).detach().cpu().numpy()
    for name, node in net.nodes.items():
        if isinstance(node, Add) and net.mode != "float":
            arrays[f"{name}.steps"] = np.float32(node.steps.cpu())
            arrays[f"{name}.ratio"] = node.ratio.cpu().numpy()
    return arrays


@torch.no_grad()
def _network(arrays: dict[str, np.ndarray]) -> tuple[Net, dict[str, Any]]:
    rest = dict(arrays)

    def take(
        key: str, kind: type, shape: Any = (), low: float = -np.inf, high: float = np.inf
    ) -> Any:
        array = rest.pop(key, None)
        if array is None:
            raise CheckpointError(f"array {key} is missing")
        if array.dtype.newbyteorder("=") != kind or array.shape != tuple(shape):
            what = f"{array.dtype} {list(array.shape)}"
            raise CheckpointError(f"array {key} must be {kind.__name__} {list(shape)}, not {what}")
        if not (np.isfinite(array) & (low <= array) & (array <= high)).all():
            raise CheckpointError(f"array {key} must hold finite numbers in {low:g}..{high:g}")
        return torch.from_numpy(array.astype(kind)) if array.ndim else array.item()

    facts = json.loads(str(rest.pop("meta", "no meta")))
    net = _described(facts).eval()
    net.mode = "float" if f"{net.blocks()[0][0]}.scale" in arrays else "fake"
    for name, block in net.blocks():
        block.conv.weight.copy_(take(f"{name}.weight", np.float16, block.conv.weight.shape))
        if net.mode == "float":
            block.conv.weight.mul_(take(f"{name}.scale", np.float32, low=0))
        else:
            block.quantizer = _quantizer(name, arrays, take)
            block.steps.fill_(take(f"{name}.steps", np.float32, low=TINY))
        for key in BN:
            target, low = getattr(block.bn, key), 0 if key == "running_var" else -np.inf
            target.copy_(take(f"{name}.bn.{key}", np.float32, target.shape, low))
    for name, node in net.nodes.items():
        if isinstance(node, Add) and net.mode != "float":
            node.steps.fill_(take(f"{name}.steps", np.float32, low=TINY))
            node.ratio.copy_(take(f"{name}.ratio", np.float64, (2,), TINY))
    if rest:
        raise CheckpointError(f"array {sorted(rest)[0][:80]} is unknown")
    return net, facts


def _described(facts: Any) -> Net:
    """The network that facts describe; one that cannot be is built without memory first."""
    if facts.get("version", 1) != 1 or not ("net" in facts or facts.get("dataset") in CIFAR):
        raise CheckpointError("meta: neither a net nor a known dataset, or a version that is not 1")
    if "net" not in facts:
        net = cifar_nin(facts["dataset"])
    else:
        shape = facts["net"]["input"]["shape"]
        with torch.device("meta"):
            tried = Net(copy.deepcopy(facts["net"])).eval()
            tried(torch.zeros(1, *shape))
        if sum(block.conv.weight.numel() for _, block in tried.blocks()) > MAX_WEIGHTS:
            raise CheckpointError("meta: the network is too large")
        net = Net(facts["net"])
    outputs = net.blocks()[-1][1].spec["channels"][1]
    classes = facts.get("classes", [])
    if not isinstance(classes, list) or len(classes) not in (0, outputs):
        raise CheckpointError(f"meta: classes must be a list of {outputs} names")
    return net


def _quantizer_arrays(quantizer: Quantizer) -> dict[str, Any]:
    if not isinstance(quantizer, Segments | FixedGain | ClipQ):
        raise CheckpointError(f"a checkpoint has no place for {quantizer}")
    given = {{"rms": "gain"}.get(key, key): value for key, value in vars(quantizer).items()}
    return {k: np.asarray(v) for k, v in given.items() if v is not None and v is not False}


def _quantizer(name: str, arrays: dict[str, np.ndarray], take: Any) -> Quantizer:
    if f"{name}.edges" not in arrays:
        clip = take(f"{name}.clip", np.float64, low=0, high=np.nextafter(1, 0))
        if f"{name}.gain" not in arrays:
            return ClipQ(clip)
        point = take(f"{name}.fraction_bits", np.int64, low=1, high=7)
        return FixedGain(clip, point, take(f"{name}.gain", np.float64, low=TINY))
    edges = take(f"{name}.edges", np.float64, (3,)).tolist()
    if not edges[0] < edges[1] < edges[2]:
        raise CheckpointError(f"array {name}.edges must ascend, not {edges}")
    zero = take(f"{name}.zero", np.int64, low=0, high=3)
    affine = f"{name}.affine" in arrays and take(f"{name}.affine", np.bool_, low=1)
    return Segments(tuple(edges), zero, bool(affine))
