"""What each Keras backend does in its own way: loops over time and custom gradients.

Import this module instead of the files of the backends. Each of them defines the same functions:

| function | purpose |
| --- | --- |
| `scan(body, carry, xs, like, reverse)` | a loop over the first axis |
| `differentiable_scan(step, carry, xs, constants, variables, like)` | a loop with a gradient |
| `recomputed(function)` | a step of that loop, which stores nothing for its gradient |
| `custom_vjp(forward, backward, ...)` | a function with a gradient of its own |
| `vjp(function, primals, cotangents)` | a vector-Jacobian product |
| `pullback(function, primals)` | the outputs of a function, and its vector-Jacobian product |
| `product(x, kernel)` | a matrix product, whose gradient in such a loop takes less time |
| `true_rows(mask)` | where a mask `[N]` is True, and on JAX all indices |
| `steps_at_once()` | how many steps to project at once, or None for all |
| `uses_custom_gradient()` | whether a layer must define its own gradient |
| `split_batch(structure, work)` | the parts of a batch that run in parallel |
| `computes_in_loops()` | whether a loop also computes what could be computed for all steps |
| `derives_from_tangent()` | whether a gradient is derived from a tangent |
| `sigmoid_gradient(y, d_y)`, `tanh_gradient(y, d_y)` | gradients, from the value of the function |
| `linear_recurrence_form(x)` | the fastest form of a recurrence that is linear |
| `largest_chunk()` | the most steps of such a recurrence to compute at once, or None for all |
| `fused_obstacle(kind, tensors, ...)` | why there is no fused kernel for a recurrent layer |
| `fused_recurrence(kind, inputs, states, ...)` | a recurrent layer in one operation |
| `fused_takes_lengths()` | whether that operation takes the lengths of the sequences |
| `fused_supports_jit()` | whether Keras may compile a model with that operation |
| `traced_format()` | the format for which a model is traced, "litert" or "onnx", or None |
"""

import keras

if keras.backend.backend() == "tensorflow":
    from unroll.layers.backend_tensorflow import (
        computes_in_loops,
        custom_vjp,
        derives_from_tangent,
        differentiable_scan,
        fused_obstacle,
        fused_recurrence,
        fused_supports_jit,
        fused_takes_lengths,
        largest_chunk,
        linear_recurrence_form,
        product,
        pullback,
        recomputed,
        scan,
        sigmoid_gradient,
        split_batch,
        steps_at_once,
        tanh_gradient,
        traced_format,
        true_rows,
        uses_custom_gradient,
        vjp,
    )
elif keras.backend.backend() == "jax":
    from unroll.layers.backend_jax import (
        computes_in_loops,
        custom_vjp,
        derives_from_tangent,
        differentiable_scan,
        fused_obstacle,
        fused_recurrence,
        fused_supports_jit,
        fused_takes_lengths,
        largest_chunk,
        linear_recurrence_form,
        product,
        pullback,
        recomputed,
        scan,
        split_batch,
        steps_at_once,
        traced_format,
        true_rows,
        uses_custom_gradient,
        vjp,
    )
    from unroll.layers.operations import sigmoid_gradient, tanh_gradient
elif keras.backend.backend() == "torch":
    from unroll.layers.backend_torch import (
        computes_in_loops,
        custom_vjp,
        derives_from_tangent,
        differentiable_scan,
        fused_obstacle,
        fused_recurrence,
        fused_supports_jit,
        fused_takes_lengths,
        largest_chunk,
        linear_recurrence_form,
        product,
        pullback,
        recomputed,
        scan,
        split_batch,
        steps_at_once,
        traced_format,
        true_rows,
        uses_custom_gradient,
        vjp,
    )
    from unroll.layers.operations import sigmoid_gradient, tanh_gradient
else:
    raise ImportError(
        f"unroll.layers supports the Keras backends tensorflow, jax and torch, "
        f"got {keras.backend.backend()!r}."
    )

__all__ = [
    "computes_in_loops",
    "custom_vjp",
    "derives_from_tangent",
    "differentiable_scan",
    "fused_obstacle",
    "fused_recurrence",
    "fused_supports_jit",
    "fused_takes_lengths",
    "largest_chunk",
    "linear_recurrence_form",
    "product",
    "pullback",
    "recomputed",
    "scan",
    "sigmoid_gradient",
    "split_batch",
    "steps_at_once",
    "tanh_gradient",
    "traced_format",
    "true_rows",
    "uses_custom_gradient",
    "vjp",
]
