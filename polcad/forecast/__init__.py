"""Forecasters: upper bounds on the coming peaks of racks and rows, learned from their own past."""
