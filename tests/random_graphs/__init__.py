"""Random networks over all operators that pcc takes, as PyTorch modules and as ONNX models, and what it takes to check
one.

A network is drawn step by step from a `random.Random` (Hypothesis has one that shrinks), and each step is run at once:
the next one knows shapes and values, so that windows fit, and so that no comparison, rounding or arg max hangs on the
last bit of a number.
"""
