"""cuDNN's recurrent kernels on TensorFlow, by the operation `CudnnRNNV3`.

`keras.layers.LSTM` and `keras.layers.GRU` call the same operation with the same weights. It runs on
a GPU only, and not in XLA. So a layer uses it only if the user asks for it: a SavedModel with it
could not be served on a CPU.
"""

import tensorflow as tf

# The numbers of Keras's gates in cuDNN's order: z, r, g of a GRU are r, z, g there.
_ORDERS = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}


def obstacle(required: bool) -> str | None:
    """Why `recurrence` cannot run, or None if it can.

    Args:
        required: whether the user asks for it.
    """
    if not required:
        return "on TensorFlow only use_cudnn=True selects it"
    if not tf.config.list_logical_devices("GPU"):
        return "TensorFlow has no GPU here"
    if not tf.sysconfig.get_build_info()["is_cuda_build"]:
        return "this TensorFlow is built without CUDA"
    return None


def recurrence(kind: str, inputs, states, kernel, recurrent_kernel, bias):
    """A recurrent layer in one operation.

    Args:
        kind, inputs, states, kernel, recurrent_kernel, bias: as in
            `backend_torch.fused_recurrence`.

    Returns:
        The outputs `[B, T, U]` and the list of final states.
    """
    batch, steps = tf.unstack(tf.shape(inputs)[:2])
    found = tf.raw_ops.CudnnRNNV3(
        input=inputs,
        input_h=states[0][:, None],
        input_c=states[1][:, None] if kind == "lstm" else tf.zeros([], inputs.dtype),
        params=flat_weights(_ORDERS[kind], kernel, recurrent_kernel, bias),
        sequence_lengths=tf.fill([batch], steps),
        rnn_mode=kind,
        is_training=True,  # the gradient needs it
        time_major=False,
    )
    final = (found.output_h, found.output_c)[: len(states)]
    shapes = [s.shape for s in states]
    outputs = tf.ensure_shape(found.output, [*inputs.shape[:2], shapes[0][1]])
    return outputs, [tf.ensure_shape(s[:, 0], n) for s, n in zip(final, shapes, strict=True)]


def flat_weights(order: tuple, kernel, recurrent_kernel, bias):
    """The transposes of both kernels, and two biases, in one vector.

    Args:
        order: the numbers of Keras's gates in the order to make.
        kernel: `[D, G]`.
        recurrent_kernel: `[U, G]`.
        bias: `[2, G]`; `[G]`, the second of two whose first is zero; or None, for zeros.
    """

    def flat(weight):
        gates = tf.split(weight, len(order), axis=-1)
        return tf.reshape(tf.transpose(tf.concat([gates[k] for k in order], axis=-1)), [-1])

    if bias is None:
        bias = tf.zeros([recurrent_kernel.shape[1]], kernel.dtype)
    biases = tf.unstack(bias) if len(bias.shape) == 2 else [tf.zeros_like(bias), bias]
    return tf.concat([flat(weight) for weight in (kernel, recurrent_kernel, *biases)], axis=0)
