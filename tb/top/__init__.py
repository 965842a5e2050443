"""Tests of whole networks on the accelerator, every layer compared with PyTorch."""
