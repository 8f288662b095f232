"""Devices: what sets a node's GPUs, one file a kind, found by entry point (`polcad.devices`)."""
