"""Reproduces the result table: ``python -m tools.reproduce all``, or some of its rows by name."""
