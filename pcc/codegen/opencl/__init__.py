"""The backend for GPUs: kernels as OpenCL C, written by TVM from the same kind of bodies as those of processors."""
