"""Kernels for GPUs, a family or an operator a file."""
