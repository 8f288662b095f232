"""Where points go, found by name in the entry-point group `polcad.sinks`."""
