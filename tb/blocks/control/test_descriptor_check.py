"""descriptor_check against model/compiler/geometry.py: the compiler's descriptors, the same with
fields changed a little, and random ones."""

from collections import Counter

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from host.harness import clocking
from model.compiler import CompileError, compile_network
from model.compiler.geometry import COMMON, ONLY_ADD, ONLY_CONV, ONLY_POOL, problems, sizes
from model.compiler.hardware import Hardware
from model.compiler.program_format import (
    DESCRIPTOR,
    OP_ADD,
    OP_AVGPOOL,
    OP_CONV,
    OP_MAXPOOL,
    QUAD_ADDR_W,
    RECORD_WORDS,
)
from model.compiler.records import encode
from model.network.random_networks import random_network
from tb.blocks.control.programs import around_powers
from tb.lib import field_coverage, meeting
from tb.lib.descriptors import port
from tb.lib.effort import scaled

LATENCY = 22
WORDS = 2**64


def descriptors(rng, hardware, count):
    """Descriptors (lists of sixteen words) that the compiler writes for random networks."""
    found = []
    while len(found) < count:
        seed = int(rng.integers(2**31))
        net = random_network(np.random.default_rng(seed), max_macs=600_000, name=f"seed {seed}")
        try:
            program = compile_network(net, hardware).program[1:-1]
        except CompileError:
            continue
        found += [
            [int(w) for w in program[at : at + RECORD_WORDS]]
            for at in range(RECORD_WORDS, len(program), RECORD_WORDS)
        ]
    return found[:count]


def fields_of(words):
    """Fields that the rules for this operation look at."""
    op = sizes(words).op
    return COMMON + (ONLY_CONV if op == OP_CONV else ONLY_POOL) + (ONLY_ADD if op == OP_ADD else ())


def put(words, name, value):
    """The words with one field replaced."""
    return [int(word) for word in encode(DESCRIPTOR, {name: value}, words)]


def edited(words, name, value):
    """As `put`, with the rows of the output as long as its width asks for."""
    words = put(words, name, value)
    d = sizes(words)
    if name in ("out_w", "out_quads"):
        words = put(words, "out_row_quads", d.out_w * d.out_quads % (1 << QUAD_ADDR_W))
    return words


def changed(rng, words):
    """One field a little larger or smaller, or of any value."""
    name = str(rng.choice(fields_of(words)))
    bits = DESCRIPTOR.fields[name].width
    old = getattr(sizes(words), name)
    new = (
        old + int(rng.choice([-2, -1, 1, 2]))
        if rng.random() < 0.7
        else int(rng.integers(1 << int(rng.integers(1, bits + 1))))
    )
    return name, edited(words, name, new % (1 << bits))


def scrambled(rng, words):
    """All fields of random length, but for the operation."""
    for name in fields_of(words):
        words = edited(
            words,
            name,
            int(rng.integers(1 << int(rng.integers(1, DESCRIPTOR.fields[name].width + 1)))),
        )
    return words


def reshaped(rng, words):
    """Another tile of a convolution, whose pixels are its rows times columns; other layers as they
    are."""
    if sizes(words).op != OP_CONV:
        return words
    rows, cols = (int(rng.integers(1, 1 << int(rng.integers(1, 5)))) for _ in range(2))
    if rng.random() < 0.5:
        cols = max(1, min(255, sizes(words).out_w + int(rng.integers(-1, 2))))
    for name, value in (
        ("tile_rows", rows),
        ("tile_cols", cols),
        ("tile_pixels", rows * cols % 512),
    ):
        words = put(words, name, value)
    return words


def no_size_zero(words):
    """The main controller has refused these before, and a fused sum without a region."""
    d = sizes(words)
    region = not (d.op == OP_CONV and d.fused) or d.out_base < d.out_end
    return region and all((d.in_w, d.in_h, d.in_quads, d.out_quads, d.out_w, d.out_h))


async def _start(dut):
    """The test's random generator and the hardware that the block was built for, after a reset."""
    dut.start_i.value = 0
    await clocking.start(dut)
    return np.random.default_rng(cocotb.RANDOM_SEED), Hardware(
        int(dut.NUM_MODULES.value), int(dut.BANK_WORDS.value)
    )


async def verdict(dut, words):
    """Whether bad_o pulses, exactly LATENCY cycles after the start and never else."""
    await FallingEdge(dut.clk_i)
    dut.desc_i.value = port(words)
    dut.start_i.value = 1
    bad = []
    for cycle in range(1, LATENCY + 4):
        await FallingEdge(dut.clk_i)
        dut.start_i.value = 0
        if dut.bad_o.value == 1:
            bad.append(cycle)
    assert bad in ([], [LATENCY]), f"bad_o in cycles {bad}"
    return bool(bad)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def verdicts(dut):
    """The verdict is that of the rules, on every kind of descriptor; every rule is broken, and each
    field alone decides a verdict."""
    rng, hardware = await _start(dut)
    good = descriptors(rng, hardware, 40)
    broken, decisive = Counter(), set()
    for words in good:
        assert not problems(sizes(words), hardware)
        assert not await verdict(dut, words), f"refused: {sizes(words)}"
    for number in range(500):
        words = good[int(rng.integers(len(good)))]
        kind = number % 10
        name, words = (
            ("", scrambled(rng, words))
            if kind == 0
            else ("", reshaped(rng, words))
            if kind == 5
            else changed(rng, words)
        )
        if not no_size_zero(words):
            continue
        expected = problems(sizes(words), hardware)
        assert await verdict(dut, words) == bool(expected), (
            f"{name}: the rules say {expected}, the RTL the contrary: {sizes(words)}"
        )
        broken.update(expected)
        if expected:
            decisive.add(name)
    dut._log.info("rules broken: %s", dict(broken))
    missing = {
        "input rows overlap",
        "input beyond the feature buffer",
        "input and output overlap",
        "output rows",
        "kernel height",
        "kernel width",
        "stride of a wide window",
        "tile",
        "tile of several parts of rows",
        "input channels",
        "output channels",
        "channels",
    } - set(broken)
    assert not missing, f"rules that were never broken: {sorted(missing)}"
    assert {"in_base", "in_w", "in_h", "out_w", "out_h", "in_quads", "out_quads"} <= decisive, (
        f"only {sorted(decisive)} decided"
    )


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def any_number_of_quads(dut):
    """Every number of quads a pass, in an upright convolution and in one that is not: none is as
    wrong as the rules say."""
    rng, hardware = await _start(dut)
    wanted = {0, 1}
    while wanted:
        for words in descriptors(rng, hardware, 20):
            upright = sizes(words).vertical
            if sizes(words).op != OP_CONV or upright not in wanted:
                continue
            wanted.discard(upright)
            verdicts = set()
            for quads in range(16):
                changed_words = put(words, "read_quads", quads)
                expected = bool(problems(sizes(changed_words), hardware))
                assert await verdict(dut, changed_words) == expected, (
                    f"{quads} quads: {sizes(changed_words)}"
                )
                verdicts.add(expected)
                field_coverage.hit("descriptor", {"read_quads": quads})
            assert verdicts == {False, True}


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def quads_of_two_rows(dut):
    """Convolutions that read two rows at once: of up to four quads a pixel, with room for more."""
    rng, hardware = await _start(dut)
    pairs = []
    while len(pairs) < 3:
        found = [(words, sizes(words)) for words in descriptors(rng, hardware, 20)]
        pairs += [words for words, d in found if d.op == OP_CONV and d.pair]
    for words in pairs:
        words = put(put(words, "raw", 1), "in_base", 0)
        words = put(words, "in_row_stride", 8 * sizes(words).in_w)
        for quads in range(1, 9):
            changed_words = put(words, "in_quads", quads)
            rules = ["input channels"] if quads > 4 else []
            assert problems(sizes(changed_words), hardware) == rules
            assert await verdict(dut, changed_words) == bool(rules), f"{quads} quads"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def padding_of_a_kernel(dut):
    """A kernel a column narrower than its window: a padding of all its columns is refused, of all
    but one not."""
    rng, hardware = await _start(dut)
    tried = 0
    for words in descriptors(rng, hardware, 400):
        d = sizes(words)
        kernel = d.window - 1
        if d.op != OP_CONV or d.window == 1 or d.out_w < kernel + 2:
            continue
        padded = []
        for pad in (kernel - 1, kernel):
            wider = put(put(words, "pieces", 1), "pad_w", pad)
            padded.append(put(wider, "in_w", d.out_w - 1 + kernel - 2 * pad))
        rules = [problems(sizes(words), hardware) for words in padded]
        if rules != [[], ["kernel width"]]:  # the other sizes of the layer do not allow the change
            continue
        for words, bad in zip(padded, (False, True)):
            assert await verdict(dut, words) == bad, f"refused: {not bad}, {sizes(words)}"
        tried += 1
        if tried == 3:
            return
    raise AssertionError(f"only {tried} layers fit")


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def max_pools_write(dut):
    """A max pool writes its output whatever its bit for 32-bit results says: over its own input it
    is refused."""
    rng, hardware = await _start(dut)
    pools = []
    while len(pools) < 5:
        pools += [
            words for words in descriptors(rng, hardware, 20) if sizes(words).op == OP_MAXPOOL
        ]
    for words in pools:
        base = sizes(words).in_base
        over_itself = put(put(words, "out_base", base), "out_end", base + 1)
        for raw in (0, 1):
            for changed_words, rules in (
                (put(words, "raw", raw), []),
                (put(over_itself, "raw", raw), ["input and output overlap"]),
            ):
                assert problems(sizes(changed_words), hardware) == rules
                assert await verdict(dut, changed_words) == bool(rules), (
                    f"raw {raw}, {rules or 'no rule broken'}: the RTL says the contrary"
                )


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def second_inputs(dut):
    """The second input of a sum, fused or not, at both edges of the output and of the feature
    buffer: touching, a quad too far, and anywhere."""
    rng, hardware = await _start(dut)
    sums, fused = [], []
    while min(len(sums), len(fused)) < 5:
        for words in descriptors(rng, hardware, 20):
            d = sizes(words)
            sums += [words] if d.op == OP_ADD else []
            fused += [words] if d.op == OP_CONV and d.fused else []
    broken = Counter()
    for words in sums[:8] + fused[:8]:
        d = sizes(words)
        span = (d.in_h - 1) * d.in_row_stride + d.in_w * d.in_quads
        if d.op == OP_CONV:
            span = d.out_end - d.out_base
        edges = (d.out_base - span, d.out_end, hardware.quads - span)
        places = [edge + off for edge in edges for off in (-1, 0, 1)]
        places += [int(p) for p in rng.integers(0, hardware.quads, 3)]
        for place in places:
            if place < 0:
                continue
            moved = put(words, "other_base", place)
            expected = problems(sizes(moved), hardware)
            assert await verdict(dut, moved) == bool(expected), (
                f"the rules say {expected}, the RTL the contrary: {sizes(moved)}"
            )
            broken.update(expected or ["none"])
    rules = {"none", "second input beyond the feature buffer", "second input and output overlap"}
    assert rules <= set(broken), f"rules broken: {dict(broken)}"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def exact_fits(dut):
    """Pools whose last window ends at the edge of the padded feature map, one pixel before it, or
    one beyond, with strides and sizes of many bits."""
    rng, hardware = await _start(dut)
    verdicts = Counter()
    for number in range(80):
        long, short = "hw" if number % 2 else "wh"
        out, stride, kernel, beyond = (
            int(rng.integers(2, 60)),
            int(rng.integers(1, 250)),
            int(rng.integers(1, 60)),
            int(rng.integers(-1, 2)),
        )
        pad = int(rng.integers(min(kernel, 16)))
        size = max(1, (out - 1) * stride + kernel - 2 * pad - beyond)
        words = put(
            put([0] * RECORD_WORDS, "op", OP_AVGPOOL), "in_row_stride", size if long == "w" else 1
        )
        for name in (
            "raw",
            "in_quads",
            "out_quads",
            f"in_{short}",
            f"out_{short}",
            f"pool_kernel_{short}",
            f"pool_stride_{short}",
        ):
            words = put(words, name, 1)
        for name, value in (
            ("in_", size),
            ("out_", out),
            ("pool_kernel_", kernel),
            ("pool_stride_", stride),
            ("pool_pad_", pad),
        ):
            words = put(words, name + long, value)
        expected = problems(sizes(words), hardware)
        assert await verdict(dut, words) == bool(expected), (
            f"the rules say {expected}, the RTL the contrary: {sizes(words)}"
        )
        verdicts[not expected] += 1
    assert min(verdicts[True], verdicts[False]) > 10, f"hardly a choice: {dict(verdicts)}"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def largest_numbers(dut):
    """Products beyond all widths are large, not what is left of them."""
    _, hardware = await _start(dut)
    for op in (OP_CONV, OP_MAXPOOL):
        words = [WORDS - 1] * RECORD_WORDS
        words = put(words, "op", op)
        assert problems(sizes(words), hardware) and await verdict(dut, words)
    # 2^15 rows of 2^16 quads: 2^31, whose low bits are zero.
    words = put(
        put(put([0] * RECORD_WORDS, "op", OP_AVGPOOL), "in_row_stride", 1 << 16),
        "in_h",
        (1 << 15) + 1,
    )
    for name in (
        "in_w",
        "in_quads",
        "out_w",
        "out_h",
        "out_quads",
        "pool_kernel_h",
        "pool_kernel_w",
        "pool_stride_h",
        "pool_stride_w",
    ):
        words = put(words, name, 1)
    words = put(words, "raw", 1)
    assert problems(sizes(words), hardware) == [
        "input beyond the feature buffer"
    ] and await verdict(dut, words)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def each_bit_of_each_field(dut):
    """The compiler's descriptors with every bit of every field that the rules look at inverted, so
    that each legal value also has each higher bit set, and with values around powers of two."""
    rng, hardware = await _start(dut)
    wanted = {OP_CONV: 2, OP_MAXPOOL: 1, OP_AVGPOOL: 1, OP_ADD: 1}
    if scaled(True, False):
        wanted = {OP_CONV: 1, OP_ADD: 1}
    verdicts = Counter()
    while wanted:
        for words in descriptors(rng, hardware, 10):
            op = sizes(words).op
            if not wanted.get(op):
                continue
            wanted[op] -= 1
            wanted = {kind: left for kind, left in wanted.items() if left}
            for name in fields_of(words):
                old, width = getattr(sizes(words), name), DESCRIPTOR.fields[name].width
                values = {old ^ 1 << bit for bit in range(width)}
                values |= set(around_powers(width)) if width < 10 else set()
                for value in sorted(values - {old}):
                    other = edited(words, name, value)
                    if not no_size_zero(other):
                        continue
                    expected = problems(sizes(other), hardware)
                    assert await verdict(dut, other) == bool(expected), (
                        f"{name} {value} for {old}: the rules say {expected}, the RTL not: "
                        f"{sizes(other)}"
                    )
                    verdicts[not expected] += 1
    assert verdicts[True] and verdicts[False], f"hardly a choice: {dict(verdicts)}"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def start_beside_the_verdict(dut):
    """A descriptor that is checked directly behind another one: both verdicts come, and the one of
    a check that another start has cut short does not."""
    rng, hardware = await _start(dut)
    good = descriptors(rng, hardware, 1)[0]
    bad = put(good, "in_row_stride", 0)
    decided = LATENCY - 1  # bad_o shows a cycle later
    assert problems(sizes(bad), hardware)

    async def once(offset):
        for first, second in ((bad, good), (good, bad), (bad, bad)):
            seen = []
            for cycle in range(2 * LATENCY + 8):
                await FallingEdge(dut.clk_i)
                if dut.bad_o.value == 1:
                    seen.append(cycle)
                start = {0: first, decided + offset: second}.get(cycle)
                dut.start_i.value = int(start is not None)
                if start is not None:
                    dut.desc_i.value = port(start)
            expected = [LATENCY] * (first is bad and offset >= 0)
            expected += [decided + offset + LATENCY] * (second is bad)
            assert seen == expected, f"{offset} cycles after a verdict: {seen}, not {expected}"
        return offset

    await meeting.sweep("start and verdict", range(-3, 4), once)
