"""The page of the shipped networks and of training."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from ci.report import goals
from ci.report.page import (
    COLORS,
    Badge,
    Card,
    Cards,
    Cell,
    Chart,
    Gallery,
    Missing,
    Page,
    Part,
    Picture,
    Section,
    Table,
    bars,
    chart,
)
from model.common.archive import Archive
from model.data.images import bundled_images
from model.network import Network

SHOWN = 12  # pictures of a gallery
BINS = np.linspace(-4, 4, 65)  # standard deviations


def networks(nets: Sequence[Network], zoo: Path, build: Path) -> Page:
    """Weights, answers and accuracy of the networks in a folder, and what was trained here."""
    sections = [
        Section(
            "Accuracy",
            [*_accuracy(build)],
            "Answers of the integer model on the official test set.",
        )
    ]
    for net in nets:
        sections.append(Section(net.name, [*_weights(net, zoo), *_answers(net, zoo)]))
    sections.append(Section("Training", [*_training(build / "train")]))
    sections.append(
        Section(
            "Images through the RTL",
            [*_farm(build / "farm")],
            "Records of the farm: every output was equal to the integer model's.",
        )
    )
    text = "What the shipped networks answer, what their weights look like, and how they learned."
    return Page("networks", "Networks", text, sections)


def _accuracy(build: Path) -> Iterator[Part]:
    found = [goals.read(path, {}) for path in sorted((build / "accuracy").glob("*.json"))]
    if not found:
        command = "make accuracy NET=model/zoo/nin-cifar10.clipq.npz DATASET=cifar10"
        yield Missing("Confusion matrix", command)
        return
    yield Cards(
        [
            Card(
                f"{100 * f['right'] / f['images']:.2f} %",
                f"{f['network']}, {f['dataset']}",
                f"{f['right']:,} of {f['images']:,} right",
            )
            for f in found
        ]
    )
    for f in found:
        matrix = np.array(f["confusion"])
        names = f["classes"]
        few = len(names) <= 20
        figure = go.Figure(
            go.Heatmap(
                z=np.where(matrix, matrix, np.nan),
                x=names,
                y=names,
                zmax=float(matrix[~np.eye(len(names), dtype=bool)].max()) or 1.0,
                zmin=0,
                colorscale=[[0, "rgba(13,148,136,.08)"], [1, COLORS[0]]],
                texttemplate="%{z}" if few else None,
                showscale=False,
                xgap=1,
                ygap=1,
                hovertemplate="%{y} taken for %{x}: %{z}<extra></extra>",
            )
        )
        figure.update_yaxes(autorange="reversed", title="class")
        figure.update_xaxes(title="answer")
        caption = (
            f"{f['network']} on {f['dataset']}: how many images of a class (row) were given each "
            "answer (column). Colours end at the most frequent mistake."
        )
        yield chart(figure, caption, 520 if few else 760)


def _weights(net: Network, zoo: Path) -> Iterator[Part]:
    layers = [layer for layer in net.layers if layer.op == "conv"]
    share = np.array([np.bincount(layer.index.ravel(), minlength=4) for layer in layers])
    share = 100 * share / share.sum(axis=1, keepdims=True)
    series = {f"value {i}": list(share[:, i]) for i in range(4)}
    series = {"clipped to 0": series.pop("value 0"), **series}
    names = [f"{layer.name} {tuple(int(v) for v in layer.codebook[1:])}" for layer in layers]
    caption = "Share of the codebook's four values in each layer; beside its name the other three."
    yield bars(names, series, caption, "%", (COLORS[7], *COLORS))
    path = zoo / f"{net.name}.float.npz"
    if path.exists():
        yield _histograms(path, net.name)


def _histograms(path: Path, name: str) -> Chart:
    """Weights of each layer in full precision."""
    with np.load(path, allow_pickle=False) as data:
        weights = {
            k.removesuffix(".weight"): data[k].astype(np.float64)
            for k in data.files
            if k.endswith(".weight") and data[k].ndim == 4
        }
    columns = 3
    rows = -(-len(weights) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[*weights], vertical_spacing=0.25 / rows, shared_xaxes=True
    )
    for number, values in enumerate(weights.values()):
        counts, edges = np.histogram(values / values.std(), BINS)
        place = {"row": 1 + number // columns, "col": 1 + number % columns}
        middle = (edges[1:] + edges[:-1]) / 2
        figure.add_bar(
            x=middle,
            y=100 * counts / values.size,
            marker_color=COLORS[0],
            showlegend=False,
            **place,
        )
    caption = (
        f"Weights of each layer of {name} in full precision, before quantization: per cent by "
        "value in standard deviations."
    )
    found = chart(figure, caption, 130 * rows + 60)
    figure.update_layout(bargap=0)
    figure.update_annotations(font_size=12)
    return found


def _answers(net: Network, zoo: Path) -> Iterator[Part]:
    """Pictures with what the quantized network of the checkpoint says."""
    path = zoo / f"{net.name}.ckpt.npz"
    dataset = {10: "cifar10", 100: "cifar100"}.get(len(net.classes))
    if not path.exists() or dataset is None:
        return
    import torch  # takes seconds

    from train import checkpoint
    from train.net import to_input

    pixels, labels = (part[:SHOWN] for part in bundled_images(dataset))
    trained, _ = checkpoint.read(path)
    with torch.no_grad():
        logits = trained.eval()(to_input(torch.tensor(pixels), trained.spec["input"]))
        shares = torch.softmax(logits.double().flatten(1), 1).numpy()
    pictures = []
    for image, label, share in zip(pixels, labels, shares):
        best = np.argsort(-share)[:3]
        answers = [(net.classes[i], float(share[i])) for i in best]
        pictures.append(Picture(_url(image), net.classes[label], answers))
    yield Gallery(pictures)


def _url(image: np.ndarray) -> str:
    """A data URL of uint8 [3, H, W]."""
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _training(folder: Path) -> Iterator[Part]:
    """Loss and accuracy of every stage that has trained, or trains, here."""
    curves: dict[str, list[dict[str, float]]] = {}
    for path in sorted(folder.glob("*-*/state.npz")):
        with Archive(path) as archive:
            history: Any = json.loads(str(archive["meta"])).get("history")
        if history:
            curves[path.parent.name] = history
    if not curves:
        yield Missing("Training curves", "make train")
        return
    for key, label, factor in (
        ("val", "accuracy on images held back, %", 100),
        ("loss", "training loss", 1),
    ):
        figure = go.Figure(
            [
                go.Scatter(
                    x=[h["epoch"] for h in history],
                    y=[factor * h[key] for h in history],
                    name=name,
                    mode="lines+markers",
                    marker_size=5,
                )
                for name, history in curves.items()
            ]
        )
        figure.update_layout(showlegend=True, hovermode="x unified")
        figure.update_xaxes(title="epoch")
        figure.update_yaxes(title=label)
        yield chart(figure, f"By epoch and stage: {label}.", 360)


def _farm(folder: Path) -> Iterator[Part]:
    records = [goals.read(path, {}) for path in sorted(folder.glob("*.json"))]
    if not records:
        command = "make farm-accuracy NET=model/zoo/nin-cifar10.clipq.npz DATASET=cifar10 N=100"
        yield Missing("Images on the farm", command)
        return
    rows: list[list[Cell]] = []
    for r in records:
        top = f"{100 * r['right'] / r['images']:.2f} %" if "right" in r else ""
        equal = Badge("all equal", r["equal_to_integer_model"] == r["images"])
        low, high = r["total_cycles"]["min"], r["total_cycles"]["max"]
        rows.append(
            [r["network"], r["modules"], r["images"], equal, top, low, high, r["simulator"]]
        )
    heads = ("network", "modules", "images", "outputs", "top-1", "cycles, least", "most", "by")
    yield Table(heads, rows)
