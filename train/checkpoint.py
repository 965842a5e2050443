"""The shipped checkpoint: half-precision (shadow) weights, batch norm and scales in one reproducible .npz.

A quantized network's file ends in .ckpt.npz, a full-precision one's in .float.npz and has the weights' scales as well.
"""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import torch

from model.network import write_npz
from train import clipq
from train.nin import NIN
from train.segments import Segments

CLASSES = {"cifar10": 10, "cifar100": 100}
BN = ("weight", "bias", "running_mean", "running_var")


def write(net: NIN, dataset: str, path: Path, facts: dict) -> None:
    """Write `net`; shadow weights are rounded to float16, the rest is float32. `facts` (JSON) tells how it was made."""
    arrays = {"meta": np.array(json.dumps({"dataset": dataset, **facts}, sort_keys=True))}
    for name, block in net.blocks():
        # The smallest normal float16 is 6e-5: bring weights of any scale well inside its range.
        weights = block.conv.weight.detach().cpu()
        peak = weights.abs().max()
        arrays[f"{name}.weight"] = (weights / peak).numpy().astype(np.float16)
        if net.mode == "float":
            arrays[f"{name}.scale"] = np.float32(peak)
        else:
            arrays.update({f"{name}.{key}": value for key, value in _quantizer_arrays(block.quantizer).items()})
            arrays[f"{name}.steps"] = np.float32(block.steps.cpu())
        for key in BN:
            arrays[f"{name}.bn.{key}"] = getattr(block.bn, key).detach().cpu().numpy().astype(np.float32)
    temporary = path.with_suffix(".tmp")
    write_npz(temporary, arrays)
    os.replace(temporary, path)


def read(path: Path) -> tuple[NIN, dict]:
    """(network in mode "float" or "fake", facts). Raises ValueError that names the missing or misshapen array, or says that it is no checkpoint."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        facts = json.loads(str(arrays["meta"]))
        net = NIN(CLASSES[facts["dataset"]])
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a checkpoint of the NIN, or damaged ({error})") from error
    for name, block in net.blocks():
        _copy(arrays, f"{name}.weight", block.conv.weight)
        for key in BN:
            _copy(arrays, f"{name}.bn.{key}", getattr(block.bn, key))
        if f"{name}.scale" in arrays:
            block.conv.weight.data *= float(arrays[f"{name}.scale"])
            continue
        _copy(arrays, f"{name}.steps", block.steps)
        block.quantizer = _quantizer(arrays, name)
    net.mode = "float" if "conv1.scale" in arrays else "fake"
    return net.eval(), facts


def read_for(path: Path, dataset: str, quantized: bool) -> NIN:
    """The network of a checkpoint. Raises ValueError that names the file if it is damaged, for another data set, or not quantized (in full precision) as it should be."""
    try:
        net, facts = read(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from error
    if facts["dataset"] != dataset or (net.mode != "float") != quantized:
        raise ValueError(f"{path} is not a {'quantized' if quantized else 'full-precision'} network for {dataset}")
    return net


def _quantizer_arrays(quantizer) -> dict:
    if isinstance(quantizer, Segments):
        return {"edges": np.array(quantizer.edges), "zero": np.int64(quantizer.zero)}
    return {"clip": np.float64(quantizer.clip)}


def _quantizer(arrays, name):
    try:
        if f"{name}.edges" in arrays:
            return Segments(tuple(arrays[f"{name}.edges"].tolist()), int(arrays[f"{name}.zero"]))
        return clipq.Setting(clip=float(arrays[f"{name}.clip"]))
    except KeyError as error:
        raise ValueError(f"the checkpoint has no array {error.args[0]}") from error


@torch.no_grad()
def _copy(arrays, key, target):
    if key not in arrays:
        raise ValueError(f"the checkpoint has no array {key}")
    if arrays[key].shape != tuple(target.shape):
        raise ValueError(f"array {key} has shape {arrays[key].shape}, not {tuple(target.shape)}")
    target.copy_(torch.from_numpy(arrays[key].astype(np.float32)))
