"""Compression of a trained network without labels and without a recipe: photos and a wish in, a package out.

As SPDY does (Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees", ICML 2022): a database says of
each layer what every structure and rate costs in error and in time, a solver picks one for each layer under a budget,
and the layers are fitted to the dense network's outputs.
"""
