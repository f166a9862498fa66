"""Hostile files against every reader of pcc: each is read, or refused in one line.

``pytest tests/fuzz`` tries some hundred files. ``python -m tests.fuzz`` lists the readers, and ``python -m tests.fuzz
onnx --cases 100000`` fuzzes one of them, guided by coverage (atheris). A file that does harm is kept, and goes with its
cause into ``found/`` beside this file once it is mended.
"""
