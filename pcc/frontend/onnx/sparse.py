"""Sparse tensors of an ONNX file, initializers and constants, made dense ones."""

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, SparseTensorProto, TensorProto, numpy_helper

MOST_BYTES = 2**28
"""Of a tensor that is made dense: zeros take no room in a file."""


def with_dense_tensors(model: ModelProto) -> ModelProto:
    """The model; a copy where it has sparse tensors. `ValueError` for one whose indices are not its shape's."""
    if not any(_sparse(part) for part in _parts(model)):
        return model
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for part in _parts(copied):
        if isinstance(part, GraphProto):
            part.initializer.extend(_dense(sparse) for sparse in part.sparse_initializer)
            del part.sparse_initializer[:]
        for node in part.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.SPARSE_TENSOR:
                    dense = _dense(attribute.sparse_tensor)
                    attribute.CopyFrom(AttributeProto(name="value", type=AttributeProto.TENSOR, t=dense))
    return copied


def _sparse(part: GraphProto | FunctionProto) -> bool:
    return (isinstance(part, GraphProto) and len(part.sparse_initializer) > 0) or any(
        attribute.type == AttributeProto.SPARSE_TENSOR for node in part.node for attribute in node.attribute
    )


def _parts(model: ModelProto) -> Iterator[GraphProto | FunctionProto]:
    """The graph, the functions, and the graphs in them."""
    pending: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    while pending:
        part = pending.pop()
        yield part
        for node in part.node:
            for attribute in node.attribute:
                pending += [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs


def _dense(sparse: SparseTensorProto) -> TensorProto:
    """Indices are places in the flattened tensor, or a row of coordinates for each value."""
    name, dims = sparse.values.name, tuple(sparse.dims)
    if TensorProto.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location):
        raise ValueError(f"the sparse tensor '{name}' lies in another file")
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if min(dims, default=0) < 0 or prod(dims) * values.itemsize > MOST_BYTES:
        raise ValueError(f"the sparse tensor '{name}' has the shape {dims}, larger than any that pcc makes dense")
    limits = (prod(dims),) if indices.ndim == 1 else dims
    rows = indices.reshape(-1, len(limits))
    if len(rows) != len(values) or bool(((rows < 0) | (rows >= np.array(limits))).any()):
        raise ValueError(f"the sparse tensor '{name}' of the shape {dims} has other indices")
    dense = np.zeros(dims, values.dtype)
    dense.reshape(-1)[np.ravel_multi_index(tuple(rows.T), limits)] = values
    return numpy_helper.from_array(dense, name)
