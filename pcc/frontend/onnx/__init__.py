"""ONNX files become graphs of ATen operators. ``emitter`` builds the graph, ``rules`` has the operators, ``importer``
reads the file."""
