"""The program format, spelled out once without its tables: the words of a small network."""

import numpy as np

from model.compiler import compile_network
from model.network import Layer, Network

# Whoever changes the format on purpose puts the words of the failing test's message here.
GOLDEN = """
0000005052505143 0000000001040004 0000001100000000 000000090000000a
0000000000000092 0000000000000000 0000000000000000 0000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000
0000000000000000 00000000000004e1 0000001100000000 000002010009000a
0000001000015f70 0001600000090008 005a039c007805b3 000000550001ffde
000000080001ffff 0000000500000055 0000000000000004 0000002800080005
0005020105011251 0000001000000050 0000000000000000 0000000000000010
0000000000000002 0000000300020082 0000001000015f70 0000020200090008
0000000c00000000 0000003c00050006 0000000000000000 0000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000
0000000000000000 0000000000000000 0000000100010002 000000000000000c
0000000000000000 00000000000044d1 0000000c00000000 0000020200050006
0000000c00015fd0 0001600000040006 00ff0000007805b3 0000003000000000
0000000c0001fffa 0000000600000018 0000000000000004 0000001800060004
0008020103033021 0000000c00000030 0000000000000000 000000000000000c
0000000000000001 0000000300040703 0000000c00015fd0 0000020200040006
0000000100000000 0000000100010004 0000000000000000 0000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000
0000000000000000 0000000000000000 0000000000010001 0000000000000001
0000000000000000 000000004712ad98 0000008354575143 0000200010002008
0009012c00000064 000a012d0000001e 000b012effffffd8 0009012fffffff92
000a0130ffffff4c 000b0131ffffff06 00090132fffffec0 000a0133fffffe7a
00000000121ab8b5
"""


def conv(name, source, shape, pad, **clamps):
    """A convolution whose weights and parameters are counted up."""
    channels = np.arange(shape[0])
    index = (np.arange(np.prod(shape)) % 4).astype(np.uint8).reshape(shape)
    return Layer(
        name=name,
        op="conv",
        inputs=(source,),
        stride=(1, 1),
        pad=pad,
        index=index,
        codebook=np.array([0, -77, 5, 120], np.int8),
        bias=(100 - 70 * channels).astype(np.int32),
        mult=(300 + channels).astype(np.int32),
        shift=(9 + channels % 3).astype(np.uint8),
        **clamps,
    )


def network():
    """Vertical taps, pieces of a kernel row, pools, 8-bit and 32-bit results, negative numbers."""
    pool = {"kernel": (2, 3), "stride": (2, 1), "pad": (1, 0)}
    mean = {"kernel": (4, 3), "stride": (1, 1), "pad": (0, 0)}
    return Network(
        name="golden",
        input_shape=(3, 9, 10),
        input_signed=True,
        layers=(
            conv("tall", "input", (8, 3, 5, 5), (2, 1), out_min=-100, out_max=90),
            Layer(name="most", op="maxpool", inputs=("tall",), **pool),
            conv("wide", "most", (5, 8, 2, 7), (0, 3), out_min=0, out_max=255),
            Layer(name="mean", op="avgpool", inputs=("wide",), out="int32", **mean),
        ),
    )


def test_the_words_are_those_of_the_format():
    """The program, and of the weights the first chunk's header and parameters, and the CRC.

    It must fail whenever the format changes, by intent or not; then GOLDEN is the one place to
    change.
    """
    compiled = compile_network(network())
    words = [*compiled.program, *compiled.weights[:10], compiled.weights[-1]]
    digits = [f"{int(word):016x}" for word in words]
    text = "\n".join(" ".join(digits[i : i + 4]) for i in range(0, len(digits), 4))
    assert text == GOLDEN.strip(), f"the words are now\n{text}"
