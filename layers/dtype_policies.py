"""Dtype policies of layers that contain other layers."""

import keras


def with_policy(layer: keras.layers.Layer, policy) -> keras.layers.Layer:
    """A layer for use in another layer that has a dtype policy.

    A layer that was created without a `dtype` has the global policy, `keras.config.dtype_policy()`.
    If the policy of the layer that contains it is another one, the inner layer is created again
    from its config with that policy, and so are the layers in it, such as the cells of
    `keras.layers.StackedRNNCells`. Those that have another policy than the global one keep it.

    Args:
        layer: the inner layer.
        policy: the dtype policy of the outer layer, or its name.

    Returns:
        The layer itself if no policy changes, otherwise a new layer.

    Raises:
        ValueError: if a policy changes and the layer is built.

    >>> with_policy(keras.layers.GRUCell(4), "mixed_bfloat16").compute_dtype
    'bfloat16'
    >>> with_policy(keras.layers.GRUCell(4, dtype="float16"), "mixed_bfloat16").compute_dtype
    'float16'
    """
    policy, default = own_policy(policy), keras.config.dtype_policy()
    if policy == default:
        return layer
    serialize = keras.dtype_policies.serialize
    config = layer.get_config()
    new = _replaced(config, serialize(default), serialize(policy))
    if new == config:
        return layer
    if layer.built:
        raise ValueError(
            f"The layer {layer.name!r} is built with the dtype policy {default.name!r}, and the "
            f"layer that contains it has {policy.name!r}. Create it with dtype={policy.name!r}."
        )
    return type(layer).from_config(new)


def own_policy(policy) -> keras.DTypePolicy:
    """The policy of a layer itself, from its `dtype_policy`, or the name of one."""
    policy = keras.dtype_policies.get(policy)
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    return policy.default_policy if is_map else policy


def part_policy(layer: keras.layers.Layer, name: str) -> keras.DTypePolicy:
    """The policy of a sublayer, from the name of its attribute: see `policy_of_parts`."""
    policy = layer.dtype_policy
    is_map = isinstance(policy, keras.dtype_policies.DTypePolicyMap)
    return policy[_key(name)] if is_map else policy


def policy_of_parts(layer: keras.layers.Layer, names: tuple[str, ...]) -> keras.DTypePolicy:
    """The policy for the config of a layer: its own, or a map if sublayers are quantized.

    `model.quantize` gives each sublayer that it quantizes a policy of its own. The sublayers of the
    loaded layer must have it before their weights are created, so that it is part of the config.

    Args:
        layer: the layer.
        names: the attributes that are sublayers, or None.
    """
    policy = own_policy(layer.dtype_policy)
    parts = {name: getattr(layer, name) for name in names}
    quantized = {
        _key(name): part.dtype_policy
        for name, part in parts.items()
        if part is not None and part.quantization_mode is not None
    }
    return keras.dtype_policies.DTypePolicyMap(policy, quantized) if quantized else policy


def _key(name: str) -> str:
    """The key of a sublayer in the map. Keras looks layers up by their paths: this is none."""
    return f"/{name}"


def _replaced(config, old: dict, new: dict):
    """A config in which each dtype policy `old` is `new`, in the configs of inner layers too."""
    if isinstance(config, dict):
        return {
            key: new if key == "dtype" and value == old else _replaced(value, old, new)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_replaced(value, old, new) for value in config)
    return config
