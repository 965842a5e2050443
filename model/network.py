"""Networks in memory and in ``*.clipq.npz`` files (version 1; docs/network-file.md).

``Network(...)`` and ``load_network`` apply the same checks, so a Network that exists is legal: whoever runs, trains or compiles one need not
check again. Every refusal is a NetworkError that names the layer, the field and the reason.
"""
import io
import json
import math
import reprlib
import zipfile
from dataclasses import dataclass, field, replace

import numpy as np

from model.archive import Archive, ArchiveError
from model.errors import UserError, printable
from model.files import output

FORMAT, VERSION = "clipq-net", 1
OPS = ("conv", "maxpool", "avgpool", "add")
MAX_KERNEL = 11
MAX_MULT = 32767
MAX_SHIFT = 31
ACC_MAX = 2**31 - 1
MAX_TENSOR = 1 << 26  # values of the input or of a layer's output, of one image
MAX_NAME = 255  # characters of a network's, class's or layer's name
MAX_META = 1 << 22  # bytes of the JSON text, four a character
HARMLESS = ("comment", "comments", "description", "doc", "note", "notes")  # layer keys without meaning, as is "x-..."
LAYER_KEYS = {"conv": ("stride", "pad", "out_min", "out_max", "groups", "kernel"), "maxpool": ("kernel", "stride", "pad"),
              "avgpool": ("kernel", "stride", "pad", "mult", "shift", "out_min", "out_max"), "add": ("mult", "shift", "out_min", "out_max")}
CONV_ARRAYS = ("index", "codebook", "bias", "mult", "shift")

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80
_show = _repr.repr  # a value in a message: never longer than a few lines, whatever the file holds


class NetworkError(UserError, ValueError):
    """A network or network file that breaks the contract; the message names the layer, the field and why."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One layer. Give the fields that its op has; the rest stays None. ``Network`` checks them and fills in the derived ones.

    conv: inputs, stride, pad, index, codebook, bias, mult, shift, out_min, out_max (kernel is derived from index).
    maxpool: inputs, kernel, stride, pad.
    avgpool: inputs, kernel, stride, pad, mult, shift, out_min, out_max (mult and shift are ints).
    add: inputs (two), mult (two ints), shift (int), out_min, out_max.
    With out="int32" (last layer only; conv or avgpool) mult, shift, out_min and out_max are None: the sum leaves unscaled.
    """
    name: str
    op: str                              # one of OPS
    inputs: tuple                        # names of earlier layers, or "input"
    stride: tuple = None                 # (vertical, horizontal)
    pad: tuple = None                    # (vertical, horizontal), on both sides
    kernel: tuple = None                 # (height, width)
    out_min: int = None                  # clamp of the result, inside [-128, 127] or [0, 255]
    out_max: int = None
    mult: object = None                  # conv: int32 [O]; avgpool: int; add: (int, int); each 1..32767
    shift: object = None                 # conv: uint8 [O]; avgpool, add: int; each 0..31
    out: str = "int8"                    # "int8" (signed or unsigned, see out_signed) or "int32"
    index: np.ndarray = None             # uint8 [O, I, Kh, Kw], 0..3
    codebook: np.ndarray = None          # int8 [4], codebook[0] == 0
    bias: np.ndarray = None              # int32 [O]
    in_shape: tuple = field(default=None, init=False)         # derived: (C, H, W), of every input
    out_shape: tuple = field(default=None, init=False)        # derived: (C, H, W)
    in_signed: bool = field(default=None, init=False)         # derived: whether inputs[0] is signed
    in_signed_all: tuple = field(default=None, init=False)    # derived: the same for each input (an add has two)
    out_signed: bool = field(default=None, init=False)        # derived

    @property
    def weights(self):
        """int8 [O, I, Kh, Kw]: the codebook looked up (conv only)."""
        return self.codebook[self.index]

    @property
    def sum_bound(self):
        """int64 [O]: the largest |sum| that the operation can reach, at any point of any summation order, without bias."""
        largest = 128 if self.in_signed else 255
        if self.op == "avgpool":
            return np.full(self.in_shape[0], largest * math.prod(self.kernel), np.int64)
        counts = [np.count_nonzero(self.index == k, axis=(1, 2, 3)) for k in range(len(self.codebook))]
        return largest * (np.abs(self.codebook.astype(np.int64)) @ np.array(counts, np.int64))

    @property
    def macs(self):
        """Multiply-accumulates for one image, those on padding included (0 where there are no weights)."""
        return math.prod(self.out_shape[1:]) * self.index.size if self.op == "conv" else 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A checked network; the last of ``layers`` is the output. Raises NetworkError where it breaks the contract."""
    name: str
    input_shape: tuple                   # (C, H, W)
    input_signed: bool                   # True: -128..127, False: 0..255
    layers: tuple                        # of Layer, each after the layers it reads
    scale: tuple = None                  # per input channel: input integer = clamp(rint(pixel * scale + offset))
    offset: tuple = None
    classes: tuple = ()

    def __post_init__(self):
        _check_header(self)
        object.__setattr__(self, "layers", _checked_layers(self))

    @property
    def output(self):
        """The last layer."""
        return self.layers[-1]

    @property
    def input_range(self):
        """(smallest, largest) input integer."""
        return (-128, 127) if self.input_signed else (0, 255)

    def layer(self, name):
        """The layer called ``name``; KeyError where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)


def check_input(net, images):
    """Check images against the network's input and return them as an array.

    images: any integer dtype, [N, C, H, W], in net.input_range. Raises ValueError that names the first image and value out of range.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "iu":
        raise ValueError(f"images must be integers, not {images.dtype}")
    if images.ndim != 4 or images.shape[1:] != net.input_shape:
        raise ValueError(f"images must be {_dims(('N', *net.input_shape))} for network '{net.name}', not {_dims(images.shape)}")
    low, high = net.input_range
    bad = (images < low) | (images > high)
    if bad.any():
        n, c, y, x = np.argwhere(bad)[0]
        raise ValueError(f"image {n}: value {images[n, c, y, x]} at channel {c}, row {y}, column {x} is outside {low}..{high}, "
                         f"the input range of network '{net.name}'")
    return images


# ---------------------------------------------------------------------------------------------------------------- files

def load_network(path):
    """Read and check a ``*.clipq.npz`` file. Raises NetworkError that starts with the path, for unreadable files too."""
    try:
        with Archive(path) as archive:
            return _parse(archive)
    except (NetworkError, ArchiveError) as error:
        raise NetworkError(f"{printable(path)}: {error}") from None
    except OSError as error:
        raise NetworkError(f"{printable(path)}: {error.strerror}") from error


def save_network(net, path):
    """Write ``net``; the same content gives the same bytes on every machine.

    Member times are fixed. Compression is bzip2, whose one implementation is frozen, whereas the bytes of a deflate stream depend on the zlib
    that Python was built with.
    """
    meta = {"format": FORMAT, "version": VERSION, "name": net.name, "classes": list(net.classes),
            "input": {"shape": list(net.input_shape), "signed": net.input_signed}, "layers": [_layer_json(layer) for layer in net.layers]}
    if net.scale is not None:
        meta["input"].update(scale=list(net.scale), offset=list(net.offset))
    arrays = {"meta": np.array(json.dumps(meta, separators=(",", ":")))}
    for layer in net.layers:
        if layer.op == "conv":
            scaling = ("mult", "shift") if layer.out == "int8" else ()
            arrays.update({f"{layer.name}.{key}": getattr(layer, key) for key in ("index", "codebook", "bias", *scaling)})
    write_npz(path, arrays)


def write_npz(path, arrays):
    """Write a dict of arrays as an .npz whose bytes depend on its content only (little endian, C order, fixed times, bzip2)."""
    with output(path) as handle, zipfile.ZipFile(handle, "w") as archive:
        for name, array in arrays.items():
            array = np.asarray(array)
            data = io.BytesIO()
            np.lib.format.write_array(data, array.astype(array.dtype.newbyteorder("<"), order="C"), version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_BZIP2, 3, 0o644 << 16
            archive.writestr(member, data.getvalue())


def _read(archive, key, where):
    try:
        return archive[key]
    except ArchiveError as error:
        raise NetworkError(f"{where}: {error}") from error


def _parse(archive):
    meta = _read_meta(archive)
    if meta.get("format") != FORMAT:
        raise NetworkError(f"format: must be '{FORMAT}', not {_show(meta.get('format'))}")
    if type(meta.get("version")) is not int or meta["version"] != VERSION:
        raise NetworkError(f"version: this program reads version {VERSION}, not {_show(meta.get('version'))}")
    source = _need(meta, "input", "meta")
    if not isinstance(source, dict):
        raise NetworkError("input: must be a JSON object")
    entries = _need(meta, "layers", "meta")
    if not isinstance(entries, list):
        raise NetworkError("layers: must be a list")
    net = Network(name=_need(meta, "name", "meta"), input_shape=_need(source, "shape", "input"), input_signed=_need(source, "signed", "input"),
                  scale=source.get("scale"), offset=source.get("offset"), classes=meta.get("classes", ()),
                  layers=[_parse_layer(archive, number, entry) for number, entry in enumerate(entries)])
    _check_arrays(archive, {layer.name: layer.op for layer in net.layers})
    return net


def _read_meta(archive):
    if archive.size("meta") > MAX_META:
        raise NetworkError(f"meta: {archive.size('meta'):,} bytes, at most {MAX_META:,} are read")
    text = _read(archive, "meta", "meta")
    if text.shape != () or text.dtype.kind != "U":
        raise NetworkError(f"meta: must be a 0-d string array, not {text.dtype} {_dims(text.shape)}")
    try:
        meta = json.loads(str(text), object_pairs_hook=_unique)
    except NetworkError:
        raise
    except (ValueError, RecursionError, SystemError) as error:
        raise NetworkError(f"meta: not JSON ({error})") from None
    if not isinstance(meta, dict):
        raise NetworkError("meta: must be a JSON object")
    return meta


def _unique(pairs):
    table = {}
    for key, value in pairs:
        if key in table:
            raise NetworkError(f"meta: key {_show(key)} is there twice in one object")
        table[key] = value
    return table


def _check_arrays(archive, ops):
    """Refuse arrays that a layer would need for something that this format does not have, such as zero points."""
    for name in archive.names:
        layer, _, key = name.rpartition(".")
        known = CONV_ARRAYS if ops.get(layer) == "conv" else ()
        if layer in ops and key not in known and not _harmless(key):
            raise NetworkError(f"layer '{layer}': {printable(key[:80])}: unknown array; {ops[layer]} has {_listed(known)}")


def _harmless(key):
    return key in HARMLESS or key.startswith("x-")


def _listed(words):
    return ", ".join(words) or "none"


def _need(table, key, where):
    if key not in table:
        raise NetworkError(f"{where}: {key}: missing")
    return table[key]


def _parse_layer(archive, number, entry):
    if not isinstance(entry, dict):
        raise NetworkError(f"layers[{number}]: must be a JSON object")
    name = _need(entry, "name", f"layers[{number}]")
    if not _is_name(name):
        raise _bad_name(number, name)
    where = f"layer {_show(name)}"
    op = _need(entry, "op", where)
    if not isinstance(op, str) or op not in OPS:
        raise NetworkError(f"{where}: op: {_show(op)} is unknown; there are {', '.join(OPS)}")
    out = entry.get("out", "int8")
    if out not in ("int8", "int32"):
        raise NetworkError(f"{where}: out: must be 'int8' or 'int32', not {_show(out)}")
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
            raise NetworkError(f"{where}: kernel: {_show(entry['kernel'])} is not the index's {_dims(kernel)}")
    return Layer(name=name, op=op, out=out, **fields)


def _check_keys(entry, op, out, where):
    """Refuse keys that this format does not have: they may change the result where they come from."""
    known = {"name", "op", "inputs", "out", *LAYER_KEYS[op]}
    if out == "int32":
        known |= {"mult", "shift", "out_min", "out_max"}
    for key in entry:
        if key not in known and not _harmless(key):
            raise NetworkError(f"{where}: {printable(key[:80])}: unknown key; {op} has {', '.join(LAYER_KEYS[op])}, and notes go under "
                               f"{', '.join(HARMLESS)} or x-...")
    if op == "conv" and (type(entry.get("groups", 1)) is not int or entry.get("groups", 1) != 1):
        raise NetworkError(f"{where}: groups: only 1 is supported, not {_show(entry['groups'])}")


def _layer_json(layer):
    keys = {"conv": ("stride", "pad"), "maxpool": ("kernel", "stride", "pad"), "avgpool": ("kernel", "stride", "pad", "mult", "shift"),
            "add": ("mult", "shift")}[layer.op] + ("out_min", "out_max")
    entry = {"name": layer.name, "op": layer.op, "inputs": list(layer.inputs)}
    entry.update({key: getattr(layer, key) for key in keys if getattr(layer, key) is not None})
    if layer.out == "int32":
        entry["out"] = "int32"
    return entry


# --------------------------------------------------------------------------------------------------------------- checks

def _check_header(net):
    if not _is_name(net.name):
        raise NetworkError(f"name: must be a non-empty printable string, not {_show(net.name)}")
    if not isinstance(net.input_signed, (bool, np.bool_)):
        raise NetworkError(f"input: signed: must be true or false, not {_show(net.input_signed)}")
    object.__setattr__(net, "input_signed", bool(net.input_signed))
    object.__setattr__(net, "input_shape", _ints("input", "shape", net.input_shape, 3, 1, 2**31 - 1))
    _check_size("input: shape", net.input_shape)
    if (net.scale is None) != (net.offset is None):
        raise NetworkError("input: scale and offset: give both or neither")
    if net.scale is not None:
        object.__setattr__(net, "scale", _floats(net, "scale"))
        object.__setattr__(net, "offset", _floats(net, "offset"))
    classes = net.classes if net.classes is not None else ()
    if not isinstance(classes, (list, tuple)) or not all(map(_is_name, classes)):
        raise NetworkError(f"classes: must be a list of non-empty printable strings, not {_show(classes)}")
    object.__setattr__(net, "classes", tuple(classes))


def _floats(net, key):
    values, channels = getattr(net, key), net.input_shape[0]
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, (list, tuple)) or len(values) != channels or not all(map(_is_finite, values)):
        raise NetworkError(f"input: {key}: must be {channels} finite numbers, one per input channel, not {_show(values)}")
    return tuple(float(v) for v in values)


def _is_finite(value):
    try:
        return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _is_name(value):
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _checked_layers(net):
    layers = net.layers
    if not isinstance(layers, (list, tuple)) or not layers:
        raise NetworkError("layers: there must be at least one")
    done, names = {}, {getattr(layer, "name", None) for layer in layers if isinstance(getattr(layer, "name", None), str)}
    for number, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise NetworkError(f"layers[{number}]: must be a Layer, not {type(layer).__name__}")
        where = _check_name(layer, number, done)
        inputs = _check_inputs(net, layer, where, done, names)
        last = number == len(layers) - 1
        done[layer.name] = _checked(layer, where, inputs, last)
    used = {name for layer in done.values() for name in layer.inputs}
    for layer in list(done.values())[:-1]:
        if layer.name not in used:
            raise NetworkError(f"layer '{layer.name}': inputs: no layer reads this one, and only the last layer is an output")
    return tuple(done.values())


def _check_name(layer, number, done):
    name = layer.name
    if not _is_name(name):
        raise _bad_name(number, name)
    if name == "input":
        raise NetworkError(f"layers[{number}]: name: 'input' is reserved for the network's input")
    if name in done:
        raise NetworkError(f"layer '{name}': name: used twice")
    return f"layer '{name}'"


def _bad_name(number, name):
    return NetworkError(f"layers[{number}]: name: must be a non-empty printable string, not {_show(name)}")


def _check_inputs(net, layer, where, done, names):
    """Returns [(shape, signed)] of the tensors that the layer reads."""
    if layer.op not in OPS:
        raise NetworkError(f"{where}: op: {_show(layer.op)} is unknown; there are {', '.join(OPS)}")
    count = 2 if layer.op == "add" else 1
    if not isinstance(layer.inputs, (list, tuple)) or len(layer.inputs) != count or not all(isinstance(i, str) for i in layer.inputs):
        raise NetworkError(f"{where}: inputs: {layer.op} takes a list of {count} name{'s' * (count > 1)}, not {_show(layer.inputs)}")
    tensors = []
    for name in layer.inputs:
        if name == "input":
            tensors.append((net.input_shape, net.input_signed))
        elif name in done:
            tensors.append((done[name].out_shape, done[name].out_signed))
        elif name in names:
            raise NetworkError(f"{where}: inputs: '{name}' comes after it or is the layer itself; layers stand after those they read")
        else:
            raise NetworkError(f"{where}: inputs: there is no layer {_show(name)}")
    return tensors


def _checked(layer, where, inputs, last):
    """A copy of the layer with its fields checked, in plain types, and the derived ones filled in."""
    shape, signed = inputs[0]
    clean = {"inputs": tuple(layer.inputs)}
    _check_out(layer, where, last)
    scaled = layer.op != "maxpool" and layer.out == "int8"
    out_shape, out_signed = shape, signed
    if layer.op == "conv":
        clean.update(_check_weights(layer, where, shape, scaled))
    if layer.op in ("maxpool", "avgpool"):
        clean["kernel"] = _ints(where, "kernel", layer.kernel, 2, 1, 2**31 - 1)
    if layer.op != "add":
        clean.update(_check_geometry(layer, where, clean["kernel"]))
        channels = len(clean["bias"]) if layer.op == "conv" else shape[0]
        out_shape = (channels, *_output_size(where, shape, **{key: clean[key] for key in ("kernel", "stride", "pad")}))
        _check_size(f"{where}: output", out_shape)
    if layer.op == "avgpool" and scaled:
        clean["mult"] = _int(where, "mult", layer.mult, 1, MAX_MULT)
        clean["shift"] = _int(where, "shift", layer.shift, 0, MAX_SHIFT)
    if layer.op == "add":
        if inputs[1][0] != shape:
            raise NetworkError(f"{where}: inputs: '{layer.inputs[0]}' is {_dims(shape)} but '{layer.inputs[1]}' is {_dims(inputs[1][0])}")
        clean["mult"] = _ints(where, "mult", layer.mult, 2, 1, MAX_MULT)
        clean["shift"] = _int(where, "shift", layer.shift, 0, MAX_SHIFT)
    clean["out_min"], clean["out_max"] = _check_clamp(layer, where) if scaled else (None, None)
    if scaled:
        out_signed = clean["out_min"] < 0
    if layer.out == "int32":
        clean.update(mult=None, shift=None)
        out_signed = True
    derived = {"in_shape": shape, "out_shape": out_shape, "in_signed": signed, "in_signed_all": tuple(s for _, s in inputs), "out_signed": out_signed}
    result = replace(layer, **clean)
    for key, value in derived.items():
        object.__setattr__(result, key, value)
    _check_sums(result, where)
    return result


def _check_out(layer, where, last):
    if layer.out not in ("int8", "int32"):
        raise NetworkError(f"{where}: out: must be 'int8' or 'int32', not {_show(layer.out)}")
    if layer.out == "int32" and not last:
        raise NetworkError(f"{where}: out: only the last layer may be 'int32'")
    if layer.out == "int32" and layer.op not in ("conv", "avgpool"):
        raise NetworkError(f"{where}: out: only conv and avgpool may be 'int32', not {layer.op}")


def _check_weights(layer, where, shape, scaled):
    index = _array(where, "index", layer.index, np.uint8, (None, shape[0], None, None))
    if index.max() > 3:
        at = [int(i) for i in np.argwhere(index > 3)[0]]
        raise NetworkError(f"{where}: index: {index[tuple(at)]} at {at} is outside 0..3")
    for axis, size in zip(("height", "width"), index.shape[2:]):
        if size > MAX_KERNEL:
            raise NetworkError(f"{where}: index: kernel {axis} {size} is outside 1..{MAX_KERNEL}")
    codebook = _array(where, "codebook", layer.codebook, np.int8, (4,))
    if codebook[0] != 0:
        raise NetworkError(f"{where}: codebook: entry 0 must be 0, not {codebook[0]}")
    channels = (len(index),)
    clean = {"index": index, "codebook": codebook, "kernel": index.shape[2:], "bias": _array(where, "bias", layer.bias, np.int32, channels)}
    if scaled:
        clean["mult"] = _array(where, "mult", layer.mult, np.int32, channels, 1, MAX_MULT)
        clean["shift"] = _array(where, "shift", layer.shift, np.uint8, channels, 0, MAX_SHIFT)
    return clean


def _check_geometry(layer, where, kernel):
    stride = _ints(where, "stride", layer.stride, 2, 1, 2 if layer.op == "conv" else 2**31 - 1)
    pad = _ints(where, "pad", layer.pad, 2, 0, 2**31 - 1)
    for axis, p, k in zip(("vertical", "horizontal"), pad, kernel):
        limit = k // 2 if layer.op == "maxpool" else k - 1
        if p > limit:
            rule = "at most half the kernel" if layer.op == "maxpool" else "smaller than the kernel"
            raise NetworkError(f"{where}: pad: {axis} padding {p} must be {rule} ({k})")
    return {"stride": stride, "pad": pad}


def _output_size(where, shape, kernel, stride, pad):
    size = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, pad))
    if min(size) < 1:
        raise NetworkError(f"{where}: kernel: {_dims(kernel)} is larger than its padded input {_dims(n + 2 * p for n, p in zip(shape[1:], pad))}")
    return size


def _check_size(where, shape):
    if math.prod(shape) > MAX_TENSOR:
        raise NetworkError(f"{where}: {_dims(shape)} has {math.prod(shape):,} values, at most {MAX_TENSOR:,} are allowed")


def _check_clamp(layer, where):
    low, high = (_int(where, key, getattr(layer, key), -128, 255) for key in ("out_min", "out_max"))
    if low > high:
        raise NetworkError(f"{where}: out_min: {low} is larger than out_max {high}")
    if low < 0 and high > 127:
        raise NetworkError(f"{where}: out_max: {low}..{high} lies neither inside -128..127 nor inside 0..255")
    return low, high


def _check_sums(layer, where):
    if layer.op not in ("conv", "avgpool"):
        return
    total = layer.sum_bound + (np.abs(layer.bias.astype(np.int64)) if layer.op == "conv" else 0)
    channel = int(total.argmax())
    if total[channel] > ACC_MAX:
        cause = "bias: max|a| * sum|w| + |bias|" if layer.op == "conv" else "kernel: max|a| * window"
        raise NetworkError(f"{where}: {cause} of output channel {channel} is {total[channel]}, more than the 32-bit sum holds ({ACC_MAX})")


def _int(where, key, value, low, high):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise NetworkError(f"{where}: {key}: must be an integer in {low}..{high}, not {_show(value)}")
    return int(value)


def _ints(where, key, values, count, low, high):
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise NetworkError(f"{where}: {key}: must be a list of {count} integers, not {_show(values)}")
    return tuple(_int(where, key, value, low, high) for value in values)


def _array(where, key, array, dtype, shape, low=None, high=None):
    """A read-only native copy of ``array``; None in ``shape`` allows any size of at least 1."""
    dtype = np.dtype(dtype)
    if not isinstance(array, np.ndarray):
        raise NetworkError(f"{where}: {key}: must be an array, not {_show(array)}")
    if array.dtype.newbyteorder("=") != dtype:
        raise NetworkError(f"{where}: {key}: must be {dtype}, not {array.dtype}")
    if array.ndim != len(shape) or any(n < 1 or want not in (None, n) for n, want in zip(array.shape, shape)):
        raise NetworkError(f"{where}: {key}: must have shape {_dims('any' if n is None else n for n in shape)}, not {_dims(array.shape)}")
    if low is not None and not (low <= array.min() and array.max() <= high):
        channel = int(np.flatnonzero((array < low) | (array > high))[0])
        raise NetworkError(f"{where}: {key}: {array[channel]} of output channel {channel} is outside {low}..{high}")
    array = np.array(array, dtype, order="C", copy=True if array.flags.writeable else None)
    array.setflags(write=False)
    return array


def _dims(shape):
    return "[" + ", ".join(str(n) for n in shape) + "]"
