"""CLIP-Q training of the Network-in-Network and its export to the integer network file."""
