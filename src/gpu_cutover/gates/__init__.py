"""Checks, verdicts and the ten gates: pure functions over plain data."""
