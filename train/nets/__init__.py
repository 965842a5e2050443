"""Networks that recipes name: plain PyTorch modules."""
