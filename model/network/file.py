"""Network files ``*.clipq.npz``, version 1 (docs/network-file.md).

Every refusal is a NetworkError that names the file, the layer, the field and the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.common.archive import Archive, ArchiveError, write_npz
from model.common.errors import printable
from model.common.files import StrPath
from model.network.contract import OPS, NetworkError, bad_name, dims, is_name, show
from model.network.layer import Layer
from model.network.network import Network

FORMAT, VERSION = "clipq-net", 1
MAX_META = 1 << 22  # bytes of the JSON text, four a character
HARMLESS = (
    "comment",
    "comments",
    "description",
    "doc",
    "note",
    "notes",
)  # layer keys without meaning, as is "x-..."
LAYER_KEYS = {
    "conv": ("stride", "pad", "out_min", "out_max", "groups", "kernel"),
    "maxpool": ("kernel", "stride", "pad"),
    "avgpool": ("kernel", "stride", "pad", "mult", "shift", "out_min", "out_max"),
    "add": ("mult", "shift", "out_min", "out_max"),
}
CONV_ARRAYS = ("index", "codebook", "bias", "mult", "shift")


def load_network(path: StrPath) -> Network:
    """Read and check a ``*.clipq.npz`` file. Raises NetworkError that starts with the path, for
    unreadable files too."""
    try:
        with Archive(path) as archive:
            return _parse(archive)
    except (NetworkError, ArchiveError) as error:
        raise NetworkError(f"{printable(path)}: {error}") from None
    except OSError as error:
        raise NetworkError(f"{printable(path)}: {error.strerror}") from error


def save_network(net: Network, path: StrPath) -> None:
    """Write ``net``; the same content gives the same bytes on every machine.

    Member times are fixed. Compression is bzip2, whose one implementation is frozen, whereas the
    bytes of a deflate stream depend on the zlib that Python was built with.
    """
    meta: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": net.name,
        "classes": list(net.classes),
        "input": {"shape": list(net.input_shape), "signed": net.input_signed},
        "layers": [_layer_json(layer) for layer in net.layers],
    }
    if net.scale is not None and net.offset is not None:
        meta["input"].update(scale=list(net.scale), offset=list(net.offset))
    arrays = {"meta": np.array(json.dumps(meta, separators=(",", ":")))}
    for layer in net.layers:
        if layer.op == "conv":
            scaling = ("mult", "shift") if layer.out == "int8" else ()
            arrays.update(
                {
                    f"{layer.name}.{key}": getattr(layer, key)
                    for key in ("index", "codebook", "bias", *scaling)
                }
            )
    write_npz(path, arrays)


def _read(archive: Archive, key: str, where: str) -> np.ndarray:
    try:
        return archive[key]
    except ArchiveError as error:
        raise NetworkError(f"{where}: {error}") from error


def _parse(archive: Archive) -> Network:
    meta = _read_meta(archive)
    if meta.get("format") != FORMAT:
        raise NetworkError(f"format: must be '{FORMAT}', not {show(meta.get('format'))}")
    if type(meta.get("version")) is not int or meta["version"] != VERSION:
        raise NetworkError(
            f"version: this program reads version {VERSION}, not {show(meta.get('version'))}"
        )
    source = _need(meta, "input", "meta")
    if not isinstance(source, dict):
        raise NetworkError("input: must be a JSON object")
    entries = _need(meta, "layers", "meta")
    if not isinstance(entries, list):
        raise NetworkError("layers: must be a list")
    net = Network(
        name=_need(meta, "name", "meta"),
        input_shape=_need(source, "shape", "input"),
        input_signed=_need(source, "signed", "input"),
        scale=source.get("scale"),
        offset=source.get("offset"),
        classes=meta.get("classes", ()),
        layers=[_parse_layer(archive, number, entry) for number, entry in enumerate(entries)],
    )
    _check_arrays(archive, {layer.name: layer.op for layer in net.layers})
    return net


def _read_meta(archive: Archive) -> dict[str, Any]:
    if archive.size("meta") > MAX_META:
        raise NetworkError(f"meta: {archive.size('meta'):,} bytes, at most {MAX_META:,} are read")
    text = _read(archive, "meta", "meta")
    if text.shape != () or text.dtype.kind != "U":
        raise NetworkError(f"meta: must be a 0-d string array, not {text.dtype} {dims(text.shape)}")
    try:
        meta = json.loads(str(text), object_pairs_hook=_unique)
    except NetworkError:
        raise
    except (ValueError, RecursionError, SystemError) as error:
        raise NetworkError(f"meta: not JSON ({error})") from None
    if not isinstance(meta, dict):
        raise NetworkError("meta: must be a JSON object")
    return meta


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = {}
    for key, value in pairs:
        if key in table:
            raise NetworkError(f"meta: key {show(key)} is there twice in one object")
        table[key] = value
    return table


def _check_arrays(archive: Archive, ops: Mapping[str, str]) -> None:
    """Refuse arrays for features that this format does not have, such as zero points."""
    for name in archive:
        layer, _, key = name.rpartition(".")
        known = CONV_ARRAYS if ops.get(layer) == "conv" else ()
        if layer in ops and key not in known and not _harmless(key):
            raise NetworkError(
                f"layer '{layer}': {printable(key[:80])}: unknown array; {ops[layer]} has "
                f"{_listed(known)}"
            )


def _harmless(key: str) -> bool:
    return key in HARMLESS or key.startswith("x-")


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"


def _need(table: dict[str, Any], key: str, where: str) -> Any:
    if key not in table:
        raise NetworkError(f"{where}: {key}: missing")
    return table[key]


def _parse_layer(archive: Archive, number: int, entry: Any) -> Layer:
    if not isinstance(entry, dict):
        raise NetworkError(f"layers[{number}]: must be a JSON object")
    name = _need(entry, "name", f"layers[{number}]")
    if not is_name(name):
        raise bad_name(number, name)
    where = f"layer {show(name)}"
    op = _need(entry, "op", where)
    if not isinstance(op, str) or op not in OPS:
        raise NetworkError(f"{where}: op: {show(op)} is unknown; there are {', '.join(OPS)}")
    out = entry.get("out", "int8")
    if out not in ("int8", "int32"):
        raise NetworkError(f"{where}: out: must be 'int8' or 'int32', not {show(out)}")
    _check_keys(entry, op, out, where)
    scaled = op != "maxpool" and out != "int32"
    keys = ["inputs"]
    keys += ["stride", "pad"] if op != "add" else []
    keys += ["kernel"] if op in ("maxpool", "avgpool") else []
    keys += ["out_min", "out_max"] if scaled else []
    keys += ["mult", "shift"] if scaled and op != "conv" else []
    fields = {key: _need(entry, key, where) for key in keys}
    if op == "conv":
        arrays = ("index", "codebook", "bias") + (("mult", "shift") if scaled else ())
        fields.update({key: _read(archive, f"{name}.{key}", f"{where}: {key}") for key in arrays})
        kernel = list(fields["index"].shape[2:])
        if entry.get("kernel", kernel) != kernel:
            raise NetworkError(
                f"{where}: kernel: {show(entry['kernel'])} is not the index's {dims(kernel)}"
            )
    return Layer(name=name, op=op, out=out, **fields)


def _check_keys(entry: dict[str, Any], op: str, out: str, where: str) -> None:
    """Refuse keys that this format does not have: they may change the result elsewhere."""
    known = {"name", "op", "inputs", "out", *LAYER_KEYS[op]}
    if out == "int32":
        known |= {"mult", "shift", "out_min", "out_max"}
    for key in entry:
        if key not in known and not _harmless(key):
            raise NetworkError(
                f"{where}: {printable(key[:80])}: unknown key; {op} has "
                f"{', '.join(LAYER_KEYS[op])}, and notes go under "
                f"{', '.join(HARMLESS)} or x-..."
            )
    if op == "conv" and (type(entry.get("groups", 1)) is not int or entry.get("groups", 1) != 1):
        raise NetworkError(f"{where}: groups: only 1 is supported, not {show(entry['groups'])}")


def _layer_json(layer: Layer) -> dict[str, Any]:
    keys = {
        "conv": ("stride", "pad"),
        "maxpool": ("kernel", "stride", "pad"),
        "avgpool": ("kernel", "stride", "pad", "mult", "shift"),
        "add": ("mult", "shift"),
    }[layer.op] + ("out_min", "out_max")
    entry = {"name": layer.name, "op": layer.op, "inputs": list(layer.inputs)}
    entry.update({key: getattr(layer, key) for key in keys if getattr(layer, key) is not None})
    if layer.out == "int32":
        entry["out"] = "int32"
    return entry
