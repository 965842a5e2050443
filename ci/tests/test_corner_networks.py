"""The directed networks reach every coverage point of layers whatever the seed, checked with the
integer model instead of the RTL."""

from dataclasses import replace

import numpy as np
import pytest

from model.compiler import compile_network
from model.compiler.hardware import MODULE_COUNTS, Hardware
from model.reference.integer import run_integer
from tb.lib import coverage, field_coverage, layer_coverage
from tb.lib.chain import Chain
from tb.lib.cover_groups import GROUPS
from tb.lib.packets import edited
from tb.top import corner_networks

LAYER_GROUPS = [
    g
    for g in GROUPS
    if g.startswith(("layer_", "conv_", "pool_", "add_", "fused_"))
    or g in ("clamp", "requantize", "accumulator", "image")
]


def test_a_bit_that_no_program_has_is_an_error():
    """Nothing is dropped in silence: UNSET says what cannot be, and a computed program is proof."""
    net = Chain(np.random.default_rng(1), (2, 3, 3), True, "small").conv(3, (1, 1)).network()
    compiled = compile_network(net, Hardware())
    assert field_coverage.points(compiled) <= GROUPS["field_bit"]
    wrong = replace(compiled, program=edited(compiled, 0, {"vstep": 1 << 13}))
    with pytest.raises(coverage.CoverageError, match=r"descriptor\.vstep\[13\] 1 .*UNSET"):
        field_coverage.sample(wrong)


def reached(net, images, modules):
    """Points of a network that comes back right."""
    compiled = compile_network(net, Hardware(modules), debug=True)
    return set(layer_coverage.points(compiled, run_integer(net, images, keep=True)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_point_of_layers_is_reached(seed):
    rng = np.random.default_rng(seed)
    found = set()
    for modules in MODULE_COUNTS:
        for _, chain in corner_networks.remainder_chains(rng, modules):
            found |= reached(chain.network(), chain.images[:1], modules)
    for chain in corner_networks.corner_chains(rng):
        found |= reached(chain.network(), chain.images[:1], 4)
    found |= reached(*corner_networks.all_zero_network(rng), 4)
    missing = [
        f"{group}.{point}"
        for group in LAYER_GROUPS
        for point in sorted(GROUPS[group])
        if (group, point) not in found
    ]
    assert not missing, f"{len(missing)} points are not reached: {', '.join(missing[:10])}"
