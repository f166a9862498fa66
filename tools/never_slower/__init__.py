"""Whether a kernel that pcc chooses is ever slower than the dense one."""
