"""The driver: frontend, passes, lowering, kernels, package. One call compiles a module for any number of targets."""

from pcc.compiler.compile import compile_model

__all__ = ["compile_model"]
