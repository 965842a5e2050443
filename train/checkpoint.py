"""Networks in files: weights, batch norm, scales, and `meta`, which describes the network and how
it was made. The same content gives the same bytes.

Stages leave single precision and the optimizer's momenta behind. What ships has weights in half
precision: *.ckpt.npz of a quantized network, *.float.npz in full precision, with the scale of each
layer's weights. A quantized one determines every integer of the exported network: only networks
that half precision does not change (`snapped`) are written.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from model.common.archive import Archive, write_npz
from model.common.errors import UserError, printable
from model.network import Network, save_network
from model.network.contract import MAX_TENSOR
from train.net import Net, Node, to_network
from train.quantize.codebooks import Quantizer, halves, halves_of_index

ZOO = Path(__file__).resolve().parent.parent / "model" / "zoo"
SUFFIX = ".ckpt.npz"
MAX_BYTES = 1 << 30  # of all arrays of a file
MOMENTUM = ".momentum"  # ends the names of arrays that go on with a training
TINY = float(np.finfo(np.float32).tiny)
# The smallest number in arrays whose name ends so.
LEAST = {".running_var": 0.0, ".scale": 0.0, ".steps": TINY, ".ratio": TINY}
QUANTIZERS = TypeAdapter(dict[str, Quantizer])


class CheckpointError(UserError, ValueError):
    """A damaged file, one of another kind, or a network that a file cannot hold; it is named."""


@torch.no_grad()
def snapped(net: Net) -> Net:
    """A copy of `net` with the weights that its file gives back: of half precision, those of a
    quantized network with their indices (`halves_of_index`)."""
    net = copy.deepcopy(net)
    for _, block in net.blocks():
        weight = block.weight
        if net.mode == "float":
            weight.copy_(halves(weight).float() * weight.abs().max())
        else:
            weight.copy_(halves_of_index(weight, block.quantizer))
    return net


@torch.no_grad()
def write(
    net: Net, path: Path, facts: dict[str, Any], momenta: Mapping[str, Tensor] | None = None
) -> None:
    """Write `net`: in single precision with the momenta of its parameters, if they are given, else
    in half precision. `facts` (JSON) tells how it was made.

    Raises CheckpointError unless all numbers are finite and reading half precision gives back every
    integer of a quantized network.
    """
    made_by = {name: asdict(block.quantizer) for name, block in net.blocks()}
    made_by = {} if net.mode == "float" else made_by
    meta = json.dumps({**facts, "net": net.spec, "quantizers": made_by}, sort_keys=True)
    tensors = {
        key: value for key, value in net.nodes.state_dict().items() if value.is_floating_point()
    }
    for name, block in net.blocks() if momenta is None else ():
        tensors[f"{name}.weight"] = halves(block.weight)
        if net.mode == "float":
            tensors[f"{name}.scale"] = block.weight.abs().max()
    tensors.update({name + MOMENTUM: tensor for name, tensor in (momenta or {}).items()})
    arrays = {key: tensor.cpu().numpy() for key, tensor in tensors.items()}
    try:
        arrays = {"meta": np.array(meta), **arrays}
        restored, _ = network(arrays)
        if momenta is None and net.mode != "float":
            _compare(to_network(net), to_network(restored))
    except (UserError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{printable(path)} is not written: {error}") from error
    write_npz(path, arrays, compressed=momenta is None)


@contextmanager
def reading(path: Path) -> Iterator[Archive]:
    """The arrays of a file. Raises OSError, or CheckpointError for whatever is wrong with them,
    there or in the block that takes them up."""
    try:
        with Archive(path, MAX_BYTES) as archive:
            yield archive
    except OSError:
        raise
    except Exception as error:  # an arbitrary description makes any part of a network fail
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:500]
        message = f"{printable(path)}: no network of training, not of this recipe, or damaged"
        raise CheckpointError(f"{message}: {reason}; delete it to make it again") from error


def read(path: Path) -> tuple[Net, dict[str, Any]]:
    """(network in mode "float" or "fake", facts). Raises OSError, or CheckpointError."""
    with reading(path) as archive:
        return network(archive)


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
    try:
        network = to_network(net, str(facts.get("name")), tuple(facts.get("classes", ())))
    except UserError as error:
        raise UserError(f"{printable(source)}: {error}") from error
    save_network(network, target)
    return network


def _compare(ours: Network, theirs: Network) -> None:
    for a, b in zip(ours.layers, theirs.layers):
        for field in ("index", "codebook", "bias", "mult", "shift"):
            if not np.array_equal(getattr(a, field), getattr(b, field)):
                raise CheckpointError(f"layer {a.name}: half precision would change its {field}")


def _limited(node: Node, _: Any, output: Tensor) -> None:
    if output.numel() > MAX_TENSOR:
        raise CheckpointError(f"layer {node.spec['name']}: output {list(output.shape[1:])}")


@torch.no_grad()
def network(arrays: Mapping[str, np.ndarray]) -> tuple[Net, dict[str, Any]]:
    """(network, facts) of the arrays of a file. Raises whatever damaged ones lead to."""
    facts = json.loads(str(arrays["meta"]))
    with torch.device("meta"):  # a description may claim any size: memory is the arrays' own
        net = Net(facts.pop("net"))
        hooks = [node.register_forward_hook(_limited) for node in net.nodes.values()]
        net(torch.zeros(1, *net.spec["input"]["shape"]))
        for hook in hooks:
            hook.remove()
    own, state = net.nodes.state_dict(), {}
    for key in arrays:
        if key == "meta" or key.endswith(MOMENTUM):
            continue
        array = arrays[key]
        low = next((low for ending, low in LEAST.items() if key.endswith(ending)), -np.inf)
        if array.dtype.kind != "f" or not (np.isfinite(array) & (array >= low)).all():
            raise CheckpointError(f"array {key} must hold finite numbers from {low:g} on")
        state[key] = torch.tensor(array, dtype=own[key].dtype if key in own else None)
    scales = {name: state.pop(f"{name}.scale", torch.ones(())) for name, _ in net.blocks()}
    net.nodes.load_state_dict(state, assign=True)
    quantizers = QUANTIZERS.validate_python(facts.pop("quantizers"))
    net.mode = "fake" if quantizers else "float"
    for name, block in net.blocks():
        block.quantizer = quantizers[name] if quantizers else block.quantizer
        block.weight.mul_(scales[name])
    classes = facts.get("classes", [])
    if not isinstance(classes, list) or len(classes) not in (0, net.classes):
        raise CheckpointError(f"meta: classes must be a list of {net.classes} names")
    return net, facts
