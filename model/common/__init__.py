"""Errors, files and commands: what all other parts share."""
