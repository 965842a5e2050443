"""Networks in memory and in files: the layers, the checks, the file format."""

from model.network.contract import ACC_MAX, NetworkError
from model.network.file import load_network, save_network
from model.network.layer import Layer
from model.network.network import Network, check_input

__all__ = [
    "ACC_MAX",
    "Layer",
    "Network",
    "NetworkError",
    "check_input",
    "load_network",
    "save_network",
]
