"""How the memory of a function grows with the length of its inputs, on the TensorFlow backend."""

import math


def largest_tensor(function, specs) -> int:
    """The number of elements of the largest tensor in the graph of a function, loops included.

    An unknown size counts as 1, so the specifications should have none.
    """
    import tensorflow as tf

    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    graph = concrete.graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    return max(math.prod(max(dim.size, 1) for dim in shape.dim) for shape in shapes)


def assert_linear_memory(function, specs_of, length: int = 256):
    """`specs_of(length)` are the specifications of the arguments of `function`."""
    once, twice = (largest_tensor(function, specs_of(n)) for n in (length, 2 * length))
    assert twice <= 2.1 * once, f"{once} elements at length {length}, {twice} at {2 * length}"
