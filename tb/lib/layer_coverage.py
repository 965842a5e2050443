"""Coverage of layers: which points a network's compared tensors hit, by how the compiler mapped
each layer."""

from __future__ import annotations

import math

import numpy as np

from model.compiler import Compiled
from model.compiler.fusion import Entry
from model.network import Layer
from tb.lib import coverage
from tb.lib.cover_groups import KINDS

# w3 - w1 - w2, the coefficient of the third multiplier
CODEBOOK_DIFFERENCES = {
    127 + 128 + 128: "largest difference",
    -128 - 127 - 127: "smallest difference",
}


def sample(compiled: Compiled, tensors: dict) -> None:
    """Count the points of the layers whose tensors {layer: [N, C, H, W]} came out of the RTL and
    were found equal."""
    for group, point in points(compiled, tensors):
        coverage.hit(group, point)


def points(compiled: Compiled, tensors: dict) -> list[tuple[str, str]]:
    """(group, point) of a network and of those of its descriptors whose tensors
    {layer: [N, C, H, W]} are given."""
    found = [
        ("run", "debug program" if compiled.debug else "plain program"),
        *(("image", point) for point in _input_points(compiled)),
    ]
    for entry, previous in _in_order(compiled):
        if entry.output.name in tensors:
            tensor = tensors[entry.output.name]
            groups = [
                *layer_points(compiled, entry.layer, previous).items(),
                *(
                    _fused_points(compiled, entry, tensor)
                    if entry.add
                    else _value_points(entry.layer, tensor)
                ).items(),
            ]
            found += [(group, point) for group, members in groups for point in members]
    return found


def _in_order(compiled: Compiled) -> list[tuple[Entry, Layer | None]]:
    """The descriptors, each with the layer that was computed before it."""
    return list(zip(compiled.entries, [None, *(entry.layer for entry in compiled.entries)]))


def mapping_points(compiled: Compiled) -> set[str]:
    """`group.point` of the kinds of layers that a network has, for choosing networks before they
    run."""
    return {
        f"{group}.{point}"
        for entry, previous in _in_order(compiled)
        for group, points in layer_points(compiled, entry.layer, previous).items()
        if group in ("layer_op", "layer_mapping")
        for point in points
    }


def layer_points(compiled: Compiled, layer, previous) -> dict[str, list[str]]:
    """{group: points} that follow from a layer's shape and mapping and from the layer computed
    before it (None: the first)."""
    points = {
        "layer_op": [
            f"{layer.op}{' int32' if layer.out == 'int32' else ''} {_sign(layer.in_signed)}"
        ],
        "layer_channels": [f"{layer.op} rest {layer.out_shape[0] % 4}"],
        "layer_after": [
            f"{_kind(compiled, layer)} "
            f"{f'after {_kind(compiled, previous)}' if previous else 'first'}"
        ],
        "image": _image_points(layer),
    }
    if layer.op == "add":
        points |= _add_points(compiled, layer)
    else:
        points |= _conv_points(compiled, layer) if layer.op == "conv" else _pool_points(layer)
    if layer.out != "int32" and layer.op in ("conv", "avgpool"):
        points["requantize"] = _scaling_points(
            np.atleast_1d(layer.mult), np.atleast_1d(layer.shift)
        )
    return points


def amount(count: int) -> str:
    """1, 2 or "more"."""
    return str(count) if count < 3 else "more"


def _sign(signed: bool) -> str:
    return "signed" if signed else "unsigned"


def _kind(compiled: Compiled, layer) -> str:
    kind = f"conv {compiled.plans[layer.name].window} wide" if layer.op == "conv" else layer.op
    assert kind in KINDS
    return kind


def _input_points(compiled: Compiled) -> list[str]:
    tensor = compiled.tensors["input"]
    return [f"image {'odd' if math.prod(tensor.shape[1:]) * tensor.quads % 2 else 'even'} quads"]


def _image_points(layer) -> list[str]:
    channels, height, width = layer.out_shape
    points = (
        ["one pixel"]
        if height == width == 1
        else ["one row"]
        if height == 1
        else ["one column"]
        if width == 1
        else []
    )
    if width > 256:
        points.append("wider than a tile")
    if layer.out != "int32":
        points.append(f"result {'odd' if height * width * -(-channels // 4) % 2 else 'even'} quads")
    return points


def _pad(pad: int, most: int) -> list[str]:
    """Class of a padding that may be at most `most`; none for what lies between."""
    return (
        ["0"] if pad == 0 else ["most"] if pad == most and most >= 2 else ["1"] if pad == 1 else []
    )


def _conv_points(compiled: Compiled, layer) -> dict[str, list[str]]:
    plan, modules = compiled.plans[layer.name], compiled.hardware.num_modules
    window = f"window {plan.window}"
    kinds = [f"conv {plan.window} wide"] + [
        kind
        for kind, holds in (
            ("conv in pieces", plan.pieces > 1),
            ("conv vertical taps", plan.vertical),
            ("conv several tiles", plan.tiles > 1),
        )
        if holds
    ]
    points = {
        "layer_mapping": [f"{kind} {_sign(layer.in_signed)}" for kind in kinds],
        "conv_kernel": [f"height {layer.kernel[0]}", f"width {layer.kernel[1]}"],
        "conv_output_remainder": [
            f"modules {modules} {window} rest {layer.out_shape[0] % plan.group_channels}"
        ],
        "conv_groups": [f"{window} output {amount(plan.output_groups)}"],
        "conv_pieces": [f"{window} {amount(plan.pieces)}"],
        "conv_tiles": [f"{window} {amount(plan.tiles)}"],
        "conv_tile_border": [f"{window} {border}" for border in _tile_borders(plan)],
        "conv_pad": [
            *(f"{window} columns {p}" for p in _pad(layer.pad[1], layer.kernel[1] - 1)),
            *(
                f"{'vertical' if plan.vertical else 'channels'} rows {p}"
                for p in _pad(layer.pad[0], layer.kernel[0] - 1)
            ),
        ],
        "conv_stride": [
            f"{plan.stride[0]}x{plan.stride[1]} {'vertical' if plan.vertical else 'channels'}"
        ],
        "conv_stride_edge": _stride_edges(layer),
        "conv_codebook": _codebook_points(layer.codebook.astype(int)),
    }
    steps = f"{window} {'one step' if plan.kr_count == 1 else 'more steps'}"
    if plan.pair:
        quads = -(-layer.in_shape[0] // 4)
        points["conv_pair"] = [steps, f"{quads} quads {_sign(layer.in_signed)}"]
    elif plan.vertical:
        points["conv_vertical"] = [steps]
    else:
        points["conv_input_remainder"] = [f"{window} rest {layer.in_shape[0] % (4 * plan.quads)}"]
        points["conv_groups"].append(f"{window} input {amount(plan.channel_groups)}")
    return points


def _stride_edges(layer) -> list[str]:
    """For each axis with stride 2 where its windows begin and whether they see the last pixel."""
    return [
        f"{axis} {'odd' if pad % 2 else 'even'} pad "
        f"{'last unseen' if (size + 2 * pad - kernel) % 2 else 'all seen'}"
        for axis, size, kernel, stride, pad in zip(
            ("rows", "columns"), layer.in_shape[1:], layer.kernel, layer.stride, layer.pad
        )
        if stride == 2
    ]


def _tile_borders(plan) -> list[str]:
    (rows, cols), (_, height, width) = plan.tile, plan.out_shape
    sides = (("row", height, rows), ("column", width, cols))
    return [
        f"{side} last {'smaller' if size % tile else 'whole'}"
        for side, size, tile in sides
        if size > tile
    ]


def _codebook_points(codebook: np.ndarray) -> list[str]:
    points = [name for value, name in ((-128, "lowest"), (127, "highest")) if value in codebook]
    if len(set(codebook[1:])) < 3:
        points.append("repeated")
    if not codebook.any():
        points.append("all zero")
    difference = int(codebook[3] - codebook[1] - codebook[2])
    return (
        points + [CODEBOOK_DIFFERENCES[difference]]
        if difference in CODEBOOK_DIFFERENCES
        else points
    )


def _pool_points(layer) -> dict[str, list[str]]:
    points: dict[str, list[str]] = {"pool_window": [], "pool_stride": [], "pool_pad": []}
    for axis, kernel, stride, pad in zip(
        ("rows", "columns"), layer.kernel, layer.stride, layer.pad
    ):
        points["pool_window"].append(f"{layer.op} {axis} {kernel if kernel < 4 else 'more'}")
        points["pool_stride"].append(
            f"{layer.op} {axis} "
            f"{'overlap' if stride < kernel else 'adjacent' if stride == kernel else 'gap'}"
        )
        most = kernel // 2 if layer.op == "maxpool" else kernel - 1
        points["pool_pad"] += [f"{layer.op} {axis} {p}" for p in _pad(pad, most)]
    return points


def _fused_points(compiled: Compiled, entry: Entry, tensor: np.ndarray) -> dict[str, list[str]]:
    """Points of a sum in the write-back of a convolution, of which only the sum comes out."""
    conv, add = entry.layer, entry.output
    plan = compiled.plans[conv.name]
    other = dict(zip(add.inputs, add.in_signed_all))[entry.other]
    values = _value_points(add, tensor).get("clamp", [])
    return {
        "fused_signs": [f"{_sign(conv.out_signed)} plus {_sign(other)} to {_sign(add.out_signed)}"],
        "fused_mult": [
            f"{which} {mult if mult in (1, 32767) else 'between'}"
            for which, mult in zip(("own", "other"), entry.factors())
        ],
        "fused_mapping": [
            f"window {plan.window} {'one tile' if plan.tiles == 1 else 'more tiles'}"
        ],
        "fused_clamp": [f"{_sign(add.out_signed)} {value.split()[-1]}" for value in values],
    }


def _add_points(compiled: Compiled, layer) -> dict[str, list[str]]:
    signs = [_sign(signed) for signed in layer.in_signed_all]
    return {
        "add_signs": [f"{' plus '.join(signs)} to {_sign(layer.out_signed)}"],
        "add_inputs": ["two tensors" if len(set(layer.inputs)) == 2 else "one tensor twice"],
        "add_mult": [
            f"{which} {mult if mult in (1, 32767) else 'between'}"
            for which, mult in zip(("first", "second"), layer.mult)
        ],
    }


def _scaling_points(mult: np.ndarray, shift: np.ndarray) -> list[str]:
    mults = {int(m) for m in mult}
    points = [f"mult {m}" for m in (1, 32767) if m in mults]
    if mults - {1, 32767}:
        points.append("mult between")
    return points + ["paper mode"] if ((mult == 1) & (shift == 5)).any() else points


def _shift_points(layer, tensor: np.ndarray) -> list[str]:
    """Shifts of the channels with a value that any other shift would change."""
    telling = (np.abs(tensor) > 1) & (tensor > layer.out_min) & (tensor < layer.out_max)
    channels = telling.any(axis=(0, 2, 3))
    return [f"shift {s}" for s in np.unique(np.broadcast_to(layer.shift, channels.shape)[channels])]


def _value_points(layer, tensor: np.ndarray) -> dict[str, list[str]]:
    """Points of the values that came out: clamps that were reached and shifts that they show, or
    sums beyond what floating point keeps."""
    if layer.op == "maxpool":
        return {}
    if layer.out == "int32":
        values = tensor.astype(np.int64)
        return {
            "accumulator": [
                f"{sign} beyond 2^{bits}"
                for bits in (24, 30)
                for sign, reached in (
                    ("positive", values.max() > 1 << bits),
                    ("negative", values.min() < -(1 << bits)),
                )
                if reached
            ]
        }
    if layer.out_min == layer.out_max:
        return {}  # both edges are one: says nothing about either, nor about the shift
    low, high = (tensor == layer.out_min).any(), (tensor == layer.out_max).any()
    edge = "both" if low and high else "low" if low else "high" if high else None
    signs = f"{layer.op} {_sign(layer.in_signed)} to {_sign(layer.out_signed)}"
    points = {"clamp": [f"{signs} {edge}"] if edge else []}
    return points if layer.op == "add" else points | {"requantize": _shift_points(layer, tensor)}
