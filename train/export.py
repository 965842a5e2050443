"""From the shipped checkpoint to the network file, byte for byte. `python -m train.export --help`."""

import os
from pathlib import Path

import click

from model.network import Layer, Network, save_network
from train import checkpoint
from train.fold import fold
from train.nin import LAYERS, MEAN, POOL_NAME, STEP

ZOO = Path(__file__).resolve().parent.parent / "model" / "zoo"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def to_network(net, dataset: str, classes: tuple = ()) -> Network:
    """The integer network of a quantized NIN. Raises ValueError or NetworkError that names the layer."""
    layers, source = [], "input"
    for name, block in net.blocks():
        try:
            folded = fold(block)._asdict()
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from None
        low, high = block.limits
        layers.append(Layer(name=name, op="conv", inputs=(source,), stride=(1, 1), pad=tuple(block.conv.padding),
                            out_min=low, out_max=high, **folded))
        source = name
        if name in POOL_NAME:
            layers.append(Layer(name=POOL_NAME[name], op="maxpool", inputs=(source,), kernel=(2, 2), stride=(2, 2), pad=(0, 0)))
            source = POOL_NAME[name]
    layers.append(Layer(name="gap", op="avgpool", inputs=(source,), kernel=(8, 8), stride=(8, 8), pad=(0, 0), out="int32"))
    step = STEP[dataset]
    return Network(name=f"nin-{dataset}", input_shape=(3, 32, 32), input_signed=True, layers=tuple(layers),
                   scale=(step,) * 3, offset=tuple(-step * m for m in MEAN[dataset]), classes=classes)


def export(source: Path, target: Path) -> Network:
    """Write the network of checkpoint `source` to `target`, whole or not at all, and return it."""
    net, facts = checkpoint.read(source)
    network = to_network(net, facts["dataset"], tuple(facts.get("classes", ())))
    temporary = target.with_suffix(".tmp")
    save_network(network, temporary)
    os.replace(temporary, target)
    return network


@click.command()
@click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the network files. [the checkpoint's]")
def main(checkpoints, out):
    """Export CHECKPOINTS (*.ckpt.npz; default: all in model/zoo) to *.clipq.npz."""
    for source in checkpoints or sorted(ZOO.glob("*.ckpt.npz")):
        target = (out or source.parent) / source.name.replace(".ckpt.npz", ".clipq.npz")
        export(source, target)
        click.echo(f"{source} -> {target}")


if __name__ == "__main__":
    main()
