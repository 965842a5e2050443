"""The compiler: placement of tensors, packing of weights, packets, refusals; the paper's dataflow
and the cycle model's own rules."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from model.compiler import CompileError, compile_network
from model.compiler.conv_plan import plan_conv
from model.compiler.fusion import entries
from model.compiler.geometry import problems, sizes
from model.compiler.hardware import Hardware
from model.compiler.memory_plan import layout, place
from model.compiler.program_format import DESCRIPTOR, RECORD_WORDS, TILE_PIXELS
from model.compiler.records import decode
from model.compiler.weights import numbered, pack_passes, pe_indices
from model.data.images import ZOO
from model.network import Layer, Network, load_network
from model.network.random_networks import random_network
from model.performance.cycle_model import (
    DRAIN_TO_IDLE,
    END_TO_DRAIN,
    FETCH,
    FIRST_SETUP,
    SETTLE,
    predict,
)
from model.performance.paper_dataflow import conv_cycles, network_cycles


def conv(name, source, in_channels, out_channels, kernel, pad, stride=(1, 1)):
    rng = np.random.default_rng(1)
    return Layer(
        name=name,
        op="conv",
        inputs=(source,),
        stride=stride,
        pad=pad,
        out_min=0,
        out_max=255,
        index=rng.integers(0, 4, (out_channels, in_channels, *kernel)).astype(np.uint8),
        codebook=np.array([0, 5, -3, 7], np.int8),
        bias=np.zeros(out_channels, np.int32),
        mult=np.ones(out_channels, np.int32),
        shift=np.full(out_channels, 5, np.uint8),
    )


def network(shape, *layers):
    return Network(name="test", input_shape=shape, input_signed=False, layers=layers)


@pytest.mark.parametrize("modules", [4, 8, 16])
@pytest.mark.parametrize("seed", range(12))
def test_live_tensors_never_overlap(seed, modules):
    net = random_network(np.random.default_rng(seed), max_layers=12)
    hardware = Hardware(num_modules=modules)
    compiled = compile_network(net, hardware)
    for entry in compiled.entries:
        if entry.output.out == "int32":
            continue
        target = compiled.tensors[entry.output.name]
        assert target.base >= 0 and target.base + target.size <= hardware.quads
        for name in _read_later(compiled.entries, entry):
            other = compiled.tensors[name]
            assert other.base + other.size <= target.base or target.base + target.size <= other.base


def _read_later(entries, entry):
    """Names of the tensors that this descriptor or one behind it reads, made before it."""
    at = entries.index(entry)
    made = {"input", *(earlier.output.name for earlier in entries[:at])}
    return {name for reader in entries[at:] for name in reader.inputs} & made


def test_tensors_that_fill_the_buffer_together_fit():
    sizes = {"input": (192, 16, 16), "a": (160, 32, 32), "b": (192, 32, 32), "c": (160, 32, 32)}
    tensors = {name: layout(shape, False, False) for name, shape in sizes.items()}
    placed = place(tensors, {"input": 0, "a": 1, "b": 2}, Hardware().quads)
    assert (
        {placed["b"].base, placed["c"].base} == {0, 192 * 256}
        or placed["b"].base + placed["b"].size <= placed["c"].base
        or placed["c"].base + placed["c"].size <= placed["b"].base
    )


def overlaps(placed, last_use):
    """Pairs of tensors that are needed at the same time and share a place."""
    names = list(placed)
    spans = {n: (i, max(i, last_use.get(n, i - 1) + 1)) for i, n in enumerate(names)}
    return [
        (a, b)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if spans[b][0] <= spans[a][1]
        and placed[a].base < placed[b].base + placed[b].size
        and placed[b].base < placed[a].base + placed[a].size
    ]


def test_skip_connections_fit_in_what_their_tensors_need():
    """Random sets of tensors, some kept for later layers: nearly all fit in the most that is needed
    at a time, and none shares a place."""
    rng = np.random.default_rng(3)
    tight = 0
    for _ in range(100):
        names = ["input", *(f"l{i}" for i in range(int(rng.integers(3, 20))))]
        tensors = {
            n: layout((int(rng.choice([16, 32, 64])), int(rng.choice([8, 16])), 16), False, False)
            for n in names
        }
        last_use = {n: i + int(rng.choice([0, 0, 2, 3])) for i, n in enumerate(names[:-1])}
        needed = max(
            sum(tensors[m].size for m in names[:i] if last_use[m] >= i - 1) + tensors[n].size
            for i, n in enumerate(names)
        )
        try:
            placed = place(tensors, last_use, needed)
            tight += 1
        except CompileError:
            placed = place(tensors, last_use, needed + needed // 4)
        assert not overlaps(placed, last_use)
    assert tight >= 90


def taps_of(pes, plan):
    """Undo pe_indices by the definition of the conv modes: index [O, I, Kh, Kw] padded to whole
    groups."""
    groups, channel_groups, steps_h, pieces = pes.shape[:4]
    modules, window = plan.num_modules, plan.window
    out = np.zeros(
        (
            groups * plan.group_channels,
            4 * plan.quads * channel_groups,
            steps_h * plan.kr_step,
            pieces * window,
        ),
        np.uint8,
    )
    extra = [5, 6, 7, 13, 14, 15, 21, 22, 23, 24]
    used = np.zeros(pes.shape, bool)
    for group, cg, kr, piece, array, module in np.ndindex(*pes.shape[:6]):
        for step in range(plan.steps):
            channel_out = group * plan.group_channels + step * modules + module
            for quad in range(plan.quads):
                for tap in range(window):  # 0 is the newest, the rightmost column
                    if plan.mode == 0:
                        pe = 8 * step + quad
                    else:
                        pe = 8 * tap + quad if tap < 3 else extra[5 * (tap - 3) + quad]
                    channel_in, row = (
                        (array, kr * plan.kr_step + quad)
                        if plan.vertical
                        else (4 * (cg * plan.quads + quad) + array, kr)
                    )
                    out[channel_out, channel_in, row, piece * window + window - 1 - tap] = pes[
                        group, cg, kr, piece, array, module, pe
                    ]
                    used[group, cg, kr, piece, array, module, pe] = True
    assert not pes[~used].any(), "a PE without a tap has a weight"
    return out


@pytest.mark.parametrize("modules", [4, 16])
@pytest.mark.parametrize(
    "channels, kernel, vertical",
    [
        (3, (5, 5), True),
        (23, (5, 4), False),
        (37, (3, 3), False),
        (70, (1, 1), False),
        (9, (7, 11), False),
        (2, (9, 3), True),
    ],
)
def test_every_weight_is_in_its_pe(channels, kernel, vertical, modules):
    net = network(
        (channels, 12, 12),
        conv("c", "input", channels, 29, kernel, (kernel[0] // 2, kernel[1] // 2)),
    )
    layer = net.layers[0]
    plan = plan_conv(layer, Hardware(num_modules=modules), vertical)
    got = taps_of(pe_indices(layer.index, plan), plan)
    assert np.array_equal(got[:29, :channels, : kernel[0], : kernel[1]], layer.index)
    got[:29, :channels, : kernel[0], : kernel[1]] = 0
    assert not got.any(), "padding has weights"


def test_packed_words_hold_two_bits_a_pe():
    net = network((20, 4, 4), conv("c", "input", 20, 8, (5, 5), (2, 2)))
    plan = plan_conv(net.layers[0], Hardware(), False)
    pes = pe_indices(net.layers[0].index, plan)
    words = pack_passes(pes)
    flat = pes.reshape(pes.shape[0], -1, 400)
    for k in (0, 31, 32, 399):
        assert np.array_equal(
            words[..., k // 32] >> np.uint64(2 * (k % 32)) & np.uint64(3), flat[..., k]
        )


def test_packets_carry_length_and_crc():
    compiled = compile_network(network((3, 8, 8), conv("c", "input", 3, 4, (3, 3), (1, 1))))
    for words, magic in ((compiled.program, 0x52505143), (compiled.weights, 0x54575143)):
        header, payload, trailer = int(words[0]), words[1:-1], int(words[-1])
        assert (
            header & 0xFFFFFFFF == magic
            and header >> 32 == len(payload)
            and trailer == zlib.crc32(payload.tobytes())
        )


@pytest.mark.parametrize(
    "net, words",
    [
        (
            lambda: network((192, 32, 32), conv("big", "input", 192, 256, (1, 1), (0, 0))),
            ("'big'", "bytes"),
        ),
        (
            lambda: network((4, 4, 4), conv("wide", "input", 4, 600, (1, 1), (0, 0))),
            ("'wide'", "output channels"),
        ),
    ],
)
def test_what_the_accelerator_cannot_run_is_refused_by_name(net, words):
    with pytest.raises(CompileError) as refusal:
        compile_network(net())
    assert all(word in str(refusal.value) for word in words), refusal.value


@pytest.mark.parametrize("modules", [4, 16])
@pytest.mark.parametrize(
    "shape, outputs", [((4, 50, 50), 512), ((1, 290, 300), 16), ((4, 2, 1100), 512)]
)
def test_32_bit_results_may_be_larger_than_the_feature_buffer(shape, outputs, modules):
    """They leave as they are made: no field of their place limits them."""
    raw = dict(mult=None, shift=None, out_min=None, out_max=None, out="int32")
    last = replace(conv("last", "input", shape[0], outputs, (1, 1), (0, 0)), **raw)
    compiled = compile_network(network(shape, last), Hardware(num_modules=modules))
    words = compiled.program[1:-1].tolist()[RECORD_WORDS:]
    assert problems(sizes(words), compiled.hardware) == []
    assert predict(compiled).total_cycles > 0
    fields = decode(DESCRIPTOR, words)
    assert (fields["out_base"], fields["out_end"], fields["out_row_stride"]) == (0, 1, 1)
    assert (fields["out_h"], fields["out_w"]) == shape[1:]


def test_a_single_window_may_have_any_stride():
    """The network file allows strides that the descriptor has no bits for."""
    one = dict(op="maxpool", inputs=("input",), kernel=(8, 5), pad=(0, 0))
    wide, narrow = (
        compile_network(network((4, 8, 8), Layer(name="p", stride=stride, **one)))
        for stride in ((70_000, 3), (2**16 - 1, 3))
    )
    assert (wide.program == narrow.program).all()
    assert predict(wide).total_cycles == predict(narrow).total_cycles


def test_unknown_module_count_is_refused():
    with pytest.raises(CompileError, match="MODULES"):
        Hardware(num_modules=5)


def test_paper_dataflow_of_the_nin():
    net = load_network(ZOO / "nin-cifar10.clipq.npz")
    assert sum(network_cycles(net).values()) == 2_128_256  # 2.13 M
    assert conv_cycles((4, 10, 10), 4, (5, 5)) == 500  # a 5x5 kernel: an output every 5 cycles
    assert conv_cycles((4, 10, 10), 8, (3, 3)) == 300  # two 3x3 kernels an array
    assert conv_cycles((4, 10, 10), 100, (1, 1)) == 100  # 25 1x1 kernels an array
    assert conv_cycles((4, 10, 10), 4, (7, 7)) == 1000  # two passes


@pytest.mark.parametrize("modules, bound, ideal", [(4, 600_000, 566_656), (16, 170_000, 145_024)])
def test_predicted_cycles_of_the_nin(modules, bound, ideal):
    net = load_network(ZOO / "nin-cifar10.clipq.npz")
    prediction = predict(compile_network(net, Hardware(num_modules=modules)))
    assert sum(layer.ideal for layer in prediction.layers if layer.macs) == ideal
    assert ideal < prediction.total_cycles <= bound
    assert sum(layer.macs for layer in prediction.layers) == 222_486_528


@pytest.mark.parametrize("modules", [4, 8, 16])
def test_tiles_are_small_where_that_saves_cycles(modules):
    """Against the largest tiles: fewer cycles of the NIN; of a residual block, too, unless its
    slower drain would make tiles wait; never other passes of a tile than its rows ask for."""
    block = network(
        (32, 16, 16),
        conv("a", "input", 32, 32, (3, 3), (1, 1)),
        conv("b", "a", 32, 32, (3, 3), (1, 1)),
        add("sum", "input", "b"),
    )
    for net in (load_network(ZOO / "nin-cifar10.clipq.npz"), block):
        compiled = compile_network(net, Hardware(num_modules=modules))
        plans = {n: replace(p, tile_rows=TILE_PIXELS) for n, p in compiled.plans.items()}
        largest = predict(replace(compiled, plans=plans)).total_cycles
        assert predict(compiled).total_cycles < largest - 100
        for name, plan in compiled.plans.items():
            assert plan.slots == plans[name].slots and plan.fused == (name == "b")


@pytest.mark.parametrize("modules", [4, 8, 16])
def test_every_lost_cycle_has_a_reason(modules):
    """What is left, the drain, is that of each layer's last tile."""
    compiled = compile_network(
        load_network(ZOO / "nin-cifar10.clipq.npz"), Hardware(num_modules=modules)
    )
    layers = {layer.name: layer for layer in predict(compiled).layers}
    for name, layer in layers.items():
        assert layer.cycles == layer.ideal + sum(layer.lost.values())
        assert min(layer.lost.values()) >= 0
        assert layer.lost["descriptor"] == FETCH + 1
        plan = compiled.plans.get(name)
        if plan and name not in ("conv1", "conv9"):  # whose tiles wait for each other
            assert layer.lost["set-up"] == FIRST_SETUP
            rows, cols = plan.tile_size(*list(plan.tile_origins())[-1])
            steps = plan.out_shape[0] // modules - (plan.output_groups - 1) * plan.steps
            last = END_TO_DRAIN + rows * cols * steps + DRAIN_TO_IDLE + SETTLE
            assert layer.lost["drain"] == last + 1, name
    assert (layers["conv1"].lost["partial sums"] > 100) == (modules != 8)
    assert (layers["conv9"].lost["weights"] > 0) == (modules == 4)


def test_a_weight_buffer_smaller_than_a_pass_is_refused():
    assert Hardware(weight_words=16).pass_words == 13
    with pytest.raises(CompileError, match="WEIGHT_WORDS must be at least 13, .* got 8"):
        Hardware(weight_words=8)


def test_a_slower_weight_buffer_never_predicts_fewer_cycles():
    net = network(
        (64, 4, 4),
        conv("a", "input", 64, 128, (3, 3), (1, 1)),
        conv("b", "a", 128, 64, (3, 3), (1, 1)),
    )
    small, large = (
        predict(
            compile_network(net, replace(Hardware(num_modules=16), weight_words=words))
        ).total_cycles
        for words in (64, 4096)
    )
    assert small >= large


@pytest.mark.parametrize(
    "codebook", [(0, 5, -3, 2), (0, 2, 5, -3), (0, -76, -127, -51), (0, 7, 7, -7), (0, 0, 90, 90)]
)
def test_weights_are_renumbered_for_two_index_planes(codebook):
    layer = replace(conv("a", "input", 8, 8, (3, 3), (1, 1)), codebook=np.array(codebook, np.int8))
    planes, index = numbered(layer, Hardware(planes=2))
    assert np.array_equal(planes[index], layer.codebook[layer.index])
    assert planes[0] == 0 and (not (index == 3).any() or planes[1] + planes[2] == planes[3])


def test_a_codebook_that_needs_three_index_planes_is_refused_by_name():
    layer = replace(
        conv("a", "input", 8, 8, (3, 3), (1, 1)), codebook=np.array((0, 1, 2, 4), np.int8)
    )
    net = network((8, 6, 6), layer)
    with pytest.raises(CompileError, match=r"layer 'a': codebook: no weight of \[1, 2, 4\]"):
        compile_network(net, Hardware(planes=2))
    compile_network(net)


def add(name, *inputs, **clamps):
    limits = {"out_min": 0, "out_max": 255} | clamps
    return Layer(name=name, op="add", inputs=inputs, mult=(3, 5), shift=3, **limits)


def names(net, **options):
    return [entry.name for entry in entries(net, **options)]


def test_sums_go_into_the_larger_convolution_that_only_they_read():
    net = network(
        (8, 6, 6),
        conv("a", "input", 8, 8, (3, 3), (1, 1)),
        conv("b", "a", 8, 8, (3, 3), (1, 1)),
        conv("short", "input", 8, 8, (1, 1), (0, 0)),
        add("both", "short", "b"),
        add("twice", "both", "both"),
        conv("c", "twice", 8, 8, (3, 3), (1, 1)),
        add("kept", "c", "twice"),
        conv("d", "kept", 8, 8, (1, 1), (0, 0)),
        add("read again", "d", "kept"),
        conv("e", "d", 8, 8, (1, 1), (0, 0)),
        add("last", "e", "read again"),
    )
    expected = ["a", "short", "b + both", "twice", "c + kept", "d", "read again", "e + last"]
    assert names(net) == expected
    assert names(net, fuse=False) == [layer.name for layer in net.layers]
    compiled = compile_network(net)
    assert compiled.fused_into == {"both": "b", "kept": "c", "last": "e"}
    assert {"b", "c", "e"}.isdisjoint(compiled.tensors)
    counted = compiled.by_layer(np.arange(1, 1 + len(compiled.entries))[:, None])[:, 0]
    assert counted.tolist() == [1, 3, 2, 0, 4, 5, 0, 6, 7, 8, 0]
    records = compiled.program[1:-1].reshape(-1, RECORD_WORDS)[1:]
    both = decode(DESCRIPTOR, records[2].tolist())
    assert (both["fused"], both["mult"], both["other_mult"], both["sum_shift"]) == (1, 5, 3, 3)
    assert both["other_base"] == compiled.tensors["short"].base
    assert [decode(DESCRIPTOR, words.tolist())["fused"] for words in records] == [
        " + " in entry.name for entry in compiled.entries
    ]


def test_a_fused_sum_reads_and_writes_rows_of_one_stride():
    """A second tensor whose rows are padded for its other reader, and one whose output is."""
    for after in ((3, 3), (1, 1)):
        net = network(
            (16, 9, 9),
            conv("a", "input", 16, 16, (1, 1), (0, 0)),
            conv("b", "a", 16, 16, (3, 3), (1, 1)),
            add("sum", "a", "b"),
            conv("c", "sum", 16, 4, after, tuple(k // 2 for k in after)),
        )
        tensors = compile_network(net).tensors
        assert tensors["a"].row_stride == tensors["sum"].row_stride == 9 * 4


def test_without_room_for_both_sums_are_layers_of_their_own():
    """A convolution that waits for its sum keeps its input: here beside another large tensor."""
    net = network(
        (4, 8, 8),
        conv("wide", "input", 4, 64, (1, 1), (0, 0)),
        conv("a", "wide", 64, 4, (3, 3), (1, 1)),
        conv("as wide", "input", 4, 64, (1, 1), (0, 0)),
        conv("b", "as wide", 64, 4, (1, 1), (0, 0)),
        add("sum", "a", "b"),
    )
    room = compile_network(net, Hardware(bank_words=300))
    tight = compile_network(net, Hardware(bank_words=160))
    assert room.fused_into == {"sum": "a"} and not tight.fused_into
    assert predict(tight).total_cycles > predict(room).total_cycles


def test_layers_beyond_the_program_are_counted_without_fused_sums():
    layers = []
    for number in range(43):
        source = layers[-1].name if layers else "input"
        layers += [
            conv(f"c{number}", source, 4, 4, (1, 1), (0, 0)),
            add(f"s{number}", f"c{number}", source),
        ]
    assert len(compile_network(network((4, 2, 2), *layers)).entries) == 43
    alone = [add(f"t{n}", f"t{n - 1}" if n else "s42", "s42") for n in range(22)]
    with pytest.raises(CompileError, match="65 layers besides fused sums"):
        compile_network(network((4, 2, 2), *layers, *alone))
