"""Gateways hold the same route tables: each reads the others' and takes over what is newer."""
