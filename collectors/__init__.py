"""Collectors: what a node reads, by name through the entry points `polcad.collectors`."""
