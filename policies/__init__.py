"""Policies: what a domain should take, by name through the entry points `polcad.policies`."""
