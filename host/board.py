"""The accelerator on a PYNQ board.

Not run on a board here: written against the interface that PYNQ 3.0 documents (`Overlay`, `MMIO`,
`allocate`, `lib.dma`) and tested against a stub of it (tb/lib/pynq_stub.py).

    accelerator = on_pynq(pynq.Overlay("clipq.bit"))
    accelerator.load(load_network("x.clipq.npz"))
    print(accelerator.run(images).y)

`syn/boards/pynq_z2/project.tcl` makes a block design for the PYNQ-Z2. Any other one names the
accelerator `clipq_accel` and its AXI DMA engines, without scatter and gather and 64 bits wide,
`weights_dma`, `images_dma` and `results_dma`. A buffer length register of 26 bits holds any
network's weights.
"""

from __future__ import annotations

from typing import Any

from host.driver import Accelerator, DriverError

PARTS = ("clipq_accel", "weights_dma", "images_dma", "results_dma")


def on_pynq(overlay: Any) -> Accelerator:
    """The driver of the accelerator in a loaded `pynq.Overlay`. Raises DriverError, also for one
    that lacks a part or that is not on a board."""
    for name in PARTS:
        if not hasattr(overlay, name):
            parts = ", ".join(PARTS)
            raise DriverError(
                f"the overlay has no {name}: its block design must name {parts}, as that of "
                "syn/boards/pynq_z2 does"
            )
    try:
        import pynq
    except ImportError as error:
        raise DriverError(f"pynq is missing ({error}): run this on a PYNQ board") from None
    return Accelerator(
        overlay.clipq_accel.mmio,
        overlay.weights_dma,
        overlay.images_dma,
        overlay.results_dma,
        allocate=pynq.allocate,
    )
