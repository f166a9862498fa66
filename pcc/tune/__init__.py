"""Tuning: what a processor's costs are, found by measuring the kernels that they choose between."""
