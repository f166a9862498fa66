"""Sparse convolution on block-interleaved lines with the max pool that follows it: what is pooled never goes to memory."""

from pcc.codegen.kernels.conv_sparse_interleaved import InterleavedFamily
from pcc.codegen.layers import PooledConv2d

FAMILY = InterleavedFamily("conv-sparse-interleaved-pool", PooledConv2d)
