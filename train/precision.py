"""Number format of the training's convolutions."""

from functools import cache
from pathlib import Path

import torch


@cache
def has_bfloat16() -> bool:
    """Whether the processor, as far as oneDNN may use it, multiplies bfloat16 natively.

    Elsewhere it is ten times slower than float32.
    """
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.exists() else ""
    native = "avx512_bf16" in text or "amx_bf16" in text
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: str = "cpu"):
    """Context in which convolutions run in bfloat16 where that is fast (integers up to 256 stay
    exact in it)."""
    fast = has_bfloat16() if device == "cpu" else torch.cuda.is_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast, cache_enabled=False)
