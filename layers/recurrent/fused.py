"""The decision for a fused kernel of the backend, in place of the time loop, and its use.

A fused kernel runs all steps of a recurrent layer in one operation. It knows no masks with gaps, so
masked steps are moved to the end of each sequence, where they change nothing, and the outputs are
moved back.
"""

from keras import ops

from unroll.layers import backend
from unroll.layers.operations import cast_like, cast_to, full_precision, take_rows
from unroll.layers.recurrent.base_cell import is_newest
from unroll.layers.recurrent.cell import EQUATIONS

# For each fused kernel, what is added to the columns of each gate at a masked step, in Keras's
# order of the gates: it closes the input gate of an LSTM and opens its forget gate, and keeps the
# state of a GRU. The sigmoid of these numbers is exactly 0 or 1.
CLOSED, OPEN = -1e9, 1e9
AT_MASKED_STEPS = {
    "lstm": (CLOSED, OPEN, 0.0, 0.0),
    "gru": (OPEN, 0.0, 0.0),
    "rnn_tanh": (0.0,),
    "rnn_relu": (CLOSED,),  # or the state could grow without limit
}
# The members of a cell that a kernel replaces.
REPLACED = (*EQUATIONS, "project", "loop_kernel", "added_columns", "over_time")


def kernel_name(cell) -> str | None:
    """The fused kernel with the equations of a cell, a key of `AT_MASKED_STEPS`, or None.

    A subclass of a cell that replaces one of its equations does not inherit its kernel.
    """
    return cell.fused_kernel if is_newest(cell, "fused_kernel", REPLACED) else None


def obstacle(cell, use_cudnn: bool | str, tensors, dropout_mask=None) -> str | None:
    """Why a layer cannot run on a fused kernel, or None if it can.

    Args:
        cell: the cell of the layer.
        use_cudnn: as in `RecurrentLayer`.
        tensors: the sequences `[B, T, D]` and the initial states.
        dropout_mask: the mask of the recurrent dropout, or None.
    """
    if use_cudnn is False:
        return "use_cudnn is False"
    kind = kernel_name(cell)
    if kind is None:
        return f"there is no fused kernel with the equations and activations of {cell!r}"
    if dropout_mask is not None:
        return "a fused kernel has no recurrent dropout"
    if 0 in tensors[0].shape:
        return "a fused kernel takes at least one sequence and one step"
    return backend.fused_obstacle(kind, tensors, cell.weights, use_cudnn is True)


def run(cell, sequences, states, mask, reverse: bool):
    """Runs a cell over time on its fused kernel.

    The kernel computes in float32 where the compute dtype is a half precision, so that states do
    not lose small additions.

    Args:
        cell: a cell without an `obstacle`.
        sequences: `[B, T, D]`, zero at masked steps.
        states: the initial states, `[B, U]` each.
        mask: `[B, T]`, boolean, or None.
        reverse: whether to read the sequences from the end.

    Returns:
        The outputs `[B, T, U]`, each at its own time step, and the final states.
    """
    kind, dtype = kernel_name(cell), sequences.dtype
    x, start = full_precision(sequences), full_precision(states)
    kernel, recurrent_kernel, bias = (
        None if w is None else cast_to(ops.convert_to_tensor(w), x.dtype)
        for w in (cell.kernel, cell.masked_recurrent_kernel, cell.bias)
    )
    if reverse:
        x = ops.flip(x, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    lengths = {}
    if mask is not None:
        count = ops.cumsum(ops.cast(mask, "int32"), axis=1)  # [B, T]
        order = ops.argsort(ops.cast(ops.logical_not(mask), "int32"), axis=1)
        x = take_rows(x, ops.cast(order, "int32"))
        if backend.fused_takes_lengths():
            lengths = {"lengths": ops.sum(ops.cast(mask, "int32"), axis=1)}
        else:
            masked = ops.arange(ops.shape(x)[1]) >= count[:, -1:]  # of the moved steps
            x = ops.concatenate([x, ops.expand_dims(cast_to(masked, x.dtype), -1)], axis=-1)
            row = ops.repeat(ops.convert_to_tensor(AT_MASKED_STEPS[kind], x.dtype), cell.units)
            kernel = ops.concatenate([kernel, row[None]], axis=0)
    outputs, final = backend.fused_recurrence(
        kind, x, start, kernel, recurrent_kernel, bias, reduced=x.dtype != dtype, **lengths
    )
    if mask is not None:
        outputs = ops.concatenate([start[0][:, None], outputs], axis=1)
        outputs = take_rows(outputs, ops.cast(count, "int32"))
        final = final if lengths else [outputs[:, -1], *final[1:]]
    if reverse:
        outputs = ops.flip(outputs, axis=1)
    return cast_to(outputs, dtype), list(cast_like(final, states))
