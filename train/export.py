"""From a trained network or its checkpoint to the network file, byte for byte."""

from pathlib import Path

from model.common.errors import UserError, printable
from model.network import Layer, Network, NetworkError, save_network
from train import checkpoint
from train.net import Net
from train.quantize.fold import FoldError, fold_network

ZOO = Path(__file__).resolve().parent.parent / "model" / "zoo"
SUFFIX = ".ckpt.npz"


def _range(node) -> dict:
    low, high = node.limits
    return {"out_min": low, "out_max": high}


def _fields(net: Net, name: str, folded) -> dict:
    """What the layer of the file has besides name, op and inputs."""
    node = net.nodes[name]
    spec = node.spec
    if spec["op"] == "add":
        mult, shift = node.scales()
        return {"mult": mult, "shift": shift, **_range(node)}
    window = {key: tuple(spec[key]) for key in ("stride", "pad")}
    if spec["op"] == "conv":
        return {**window, **_range(node), **folded[name]._asdict()}
    window["kernel"] = tuple(spec["kernel"])
    if spec["op"] == "maxpool":
        return window
    if spec["last"]:
        return {**window, "out": "int32"}
    mult, shift = node.scales()
    return {**window, "mult": mult, "shift": shift, **_range(node)}


def to_network(net: Net, name: str, classes: tuple = ()) -> Network:
    """The integer network of a quantized one. Raises FoldError or NetworkError (with the layer)."""
    folded, layers, renamed = fold_network(net), [], {"input": "input"}
    for own, node in net.nodes.items():
        inputs = tuple(renamed[source] for source in node.spec["inputs"])
        if node.spec["op"] == "dropout":
            renamed[own] = inputs[0]
            continue
        renamed[own] = own
        fields = _fields(net, own, folded)
        layers.append(Layer(name=own, op=node.spec["op"], inputs=inputs, **fields))
    source = net.spec["input"]
    return Network(
        name=name,
        input_shape=tuple(source["shape"]),
        input_signed=True,
        layers=tuple(layers),
        scale=tuple(source["scale"]),
        offset=tuple(source["offset"]),
        classes=tuple(classes),
    )


def network_name(facts: dict) -> str:
    """Name of the network in a checkpoint's facts."""
    return str(facts.get("name", f"nin-{facts.get('dataset')}"))


def export(source: Path, target: Path) -> Network:
    """Write the network of checkpoint `source` to `target`, whole or not at all, and return it.

    Raises UserError that names `source`.
    """
    net, facts = checkpoint.read(source)
    if net.mode == "float":
        raise UserError(
            f"{printable(source)} is in full precision, but only quantized networks "
            f"(*{SUFFIX}) can be exported"
        )
    try:
        network = to_network(net, network_name(facts), facts.get("classes", ()))
    except (FoldError, NetworkError) as error:
        raise UserError(f"{printable(source)}: {error}") from error
    save_network(network, target)
    return network
