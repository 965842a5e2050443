"""The contract of docs/arithmetic.md as plain loops over Python integers: slow, and independent of
NumPy, PyTorch and model.reference.requantize."""


def run_loops(net, image):
    """image: nested lists [C][H][W]. Returns {layer name: nested lists [C][H][W]}."""
    tensors = {"input": image}
    for layer in net.layers:
        operation = {"conv": _conv, "maxpool": _maxpool, "avgpool": _avgpool, "add": _add}[layer.op]
        tensors[layer.name] = operation(layer, *[tensors[name] for name in layer.inputs])
    return tensors


def scale_and_clamp(value, shift, low, high):
    if shift > 0:
        value += 2 ** (shift - 1)
    return max(
        low, min(high, value // 2**shift)
    )  # Python's // rounds down, as an arithmetic shift does


def _taps(layer, plane, y, x):
    """(ky, kx, value or None on padding) of the window whose result is at (y, x)."""
    for ky in range(layer.kernel[0]):
        for kx in range(layer.kernel[1]):
            row, column = (
                y * layer.stride[0] - layer.pad[0] + ky,
                x * layer.stride[1] - layer.pad[1] + kx,
            )
            inside = 0 <= row < len(plane) and 0 <= column < len(plane[0])
            yield ky, kx, plane[row][column] if inside else None


def _output_size(layer, plane):
    size = (len(plane), len(plane[0]))
    return [
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, layer.kernel, layer.stride, layer.pad)
    ]


def _conv(layer, x):
    index, codebook = layer.index.tolist(), layer.codebook.tolist()
    height, width = _output_size(layer, x[0])

    def result(o, row, column):
        total = sum(
            value * codebook[index[o][i][ky][kx]]
            for i, plane in enumerate(x)
            for ky, kx, value in _taps(layer, plane, row, column)
            if value is not None
        )
        assert -(2**31) <= total + int(layer.bias[o]) < 2**31
        total += int(layer.bias[o])
        if layer.out == "int32":
            return total
        return scale_and_clamp(
            total * int(layer.mult[o]), int(layer.shift[o]), layer.out_min, layer.out_max
        )

    return [
        [[result(o, row, column) for column in range(width)] for row in range(height)]
        for o in range(len(index))
    ]


def _maxpool(layer, x):
    height, width = _output_size(layer, x[0])
    return [
        [
            [
                max(value for _, _, value in _taps(layer, plane, row, column) if value is not None)
                for column in range(width)
            ]
            for row in range(height)
        ]
        for plane in x
    ]


def _avgpool(layer, x):
    height, width = _output_size(layer, x[0])

    def result(plane, row, column):
        total = sum(value for _, _, value in _taps(layer, plane, row, column) if value is not None)
        return (
            total
            if layer.out == "int32"
            else scale_and_clamp(total * layer.mult, layer.shift, layer.out_min, layer.out_max)
        )

    return [
        [[result(plane, row, column) for column in range(width)] for row in range(height)]
        for plane in x
    ]


def _add(layer, a, b):
    (ma, mb), shift = layer.mult, layer.shift
    return [
        [
            [
                scale_and_clamp(p * ma + q * mb, shift, layer.out_min, layer.out_max)
                for p, q in zip(*rows)
            ]
            for rows in zip(*planes)
        ]
        for planes in zip(a, b)
    ]
