"""What Mesa's compilers for phone GPUs say of pcc's OpenCL kernels: instructions, registers, spills, and by trip counts
what a layer executes. No GPU is needed, and none is timed."""
