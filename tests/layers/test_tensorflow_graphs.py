"""What TensorFlow's graphs hold: traces for LiteRT, derivatives under XLA, memory, placement."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.layers.case import SEQUENCES, D, U
from tests.parameters import first_of
from unroll import layers
from unroll.layers import backend_tensorflow
from unroll.layers.litert_tensorflow import convert

ANY = tf.TensorSpec([None, None, D])


def traced_layer():
    layer = layers.LSTM(U)
    layer.build((None, None, D))
    return tf.function(lambda x: layer(x), input_signature=[ANY], autograph=False)


def operations(function) -> set[str]:
    graph = function.get_concrete_function().graph.as_graph_def()
    nodes = [graph.node, *(f.node_def for f in graph.library.function)]
    return {node.op for some in nodes for node in some}


def test_a_function_traced_for_litert_trains_in_the_other_form():
    inner = traced_layer()
    assert convert(lambda x: {"y": inner(x)}, {"x": ANY})
    assert "TensorListSetItem" in operations(inner)
    assert "XlaDynamicUpdateSlice" not in operations(inner)


@pytest.mark.exhaustive
def test_a_litert_model_reads_sequences_of_any_length():
    """Whole blocks of steps and groups of blocks, and a step more and less."""
    from ai_edge_litert.interpreter import Interpreter

    layer = keras.layers.Bidirectional(layers.LSTM(U, return_sequences=True))
    layer.build((None, None, D))
    compiled = tf.function(lambda x: layer(x), input_signature=[ANY], autograph=False)
    file = convert(lambda x: {"y": layer(x)}, {"x": ANY})
    run = Interpreter(model_content=file, num_threads=1).get_signature_runner()
    for length in (0, 1, 63, 64, 65, 128, 129, 256, 257, 576, 577, 5000):
        x = np.random.default_rng(length).normal(size=(2, length, D)).astype("float32")
        np.testing.assert_allclose(run(x=x)["y"], compiled(x), atol=1e-5, err_msg=str(length))


def test_a_function_traced_before_converts():
    inner = traced_layer()
    inner(tf.zeros((1, 2, D)))
    assert convert(lambda x: {"y": inner(x)}, {"x": ANY})


def test_a_stateful_layer_does_not_convert():
    model = keras.Sequential([keras.Input(batch_shape=(1, 3, D)), layers.GRU(U, stateful=True)])
    with pytest.raises(ValueError, match=r"no state.*stateful=False"):
        convert(lambda x: {"y": model(x)}, {"x": tf.TensorSpec([1, 3, D])})


@pytest.mark.parametrize("name", first_of(["LSTM", "GRU", "ClockworkRNN"]))
def test_second_derivatives_under_xla(name):
    layer = getattr(layers, name)(U)
    x = tf.constant(SEQUENCES, tf.float32)
    layer.build(x.shape)

    def second(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x) ** 2)
            z = tf.reduce_sum(inner.gradient(y, x) ** 2)
        return outer.gradient(z, x)

    expected = second(x)
    assert np.abs(expected).max() > 1e-3
    found = tf.function(second, jit_compile=True)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_eager_inference_does_not_store_what_a_gradient_needs(monkeypatch):
    """The projected inputs of a part of the steps are in memory, and nothing of the other steps."""
    sizes = []
    layer = layers.LSTM(U)
    x = tf.zeros((2, 1000, D))
    layer.build(x.shape)
    project = layer.cell.project

    def recorded(inputs):
        sizes.append(inputs.shape[0])
        return project(inputs)

    monkeypatch.setattr(layer.cell, "project", recorded)
    forward = []
    monkeypatch.setattr(
        "unroll.layers.recurrent.recurrence._Loop.forward", lambda *_: forward.append(1)
    )
    layer(x)
    assert max(sizes) <= backend_tensorflow.EAGER_STEPS
    assert sum(sizes) == 1000
    assert not forward


def test_a_batch_is_split_where_its_tensors_are_on_a_cpu(monkeypatch):
    """A GPU elsewhere in the machine does not matter, nor an earlier call."""
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda: [tf.config.LogicalDevice("GPU:0", "GPU")]
    )
    monkeypatch.setattr(backend_tensorflow, "_parallel_loops", lambda: 2)
    parts = {}

    @tf.function
    def split():
        parts["unplaced"] = len(backend_tensorflow.split_batch((tf.zeros((8, 2)),), 10**6))
        with tf.device("/CPU:0"):
            parts["cpu"] = len(backend_tensorflow.split_batch((tf.zeros((8, 2)),), 10**6))

    split.get_concrete_function()
    assert parts == {"unplaced": 1, "cpu": 2}


@pytest.mark.exhaustive
def test_a_search_with_attention_in_a_function():
    """A `tf.function` with AutoGraph, as a user writes it, also with an empty batch."""
    decoder = layers.AttentionDecoder(20, 8, [layers.LSTMCell(8)], layers.BahdanauAttention(6))
    decoder.build((None, None), (None, None, 5))

    @tf.function(input_signature=[tf.TensorSpec([None, None, 5])])
    def search(memory):
        step_function, states = decoder.step_function(memory), decoder.initial_states(memory)
        return layers.beam_search(step_function, states, start=1, end=2, max_length=4).tokens

    assert search(tf.ones((2, 3, 5))).shape == (2, 1, 4)
    assert search(tf.ones((0, 3, 5))).shape == (0, 1, 4)


@pytest.mark.parametrize(
    ("attend", "attention", "expected"),
    [
        ("before", layers.BahdanauAttention(7), [(2, 4, 6), (8, 7), (8, 24), (9, 24)]),
        ("after", layers.LuongAttention(5), [(2, 4, 6), (8, 24), (8, 24), (14, 5)]),
    ],
    ids=["before", "after"],
)
def test_gradients_of_kernels_are_products_over_all_steps(attend, attention, expected, monkeypatch):
    """Those of the memory, the cell, the query, and the vector of Luong's attention."""
    shapes, original = [], backend_tensorflow._kernel_gradient

    def recorded(x, d_product, kernel):
        shapes.append(tuple(kernel.shape))
        return original(x, d_product, kernel)

    monkeypatch.setattr(backend_tensorflow, "_kernel_gradient", recorded)
    decoder = layers.AttentionDecoder(11, 3, [layers.GRUCell(8)], attention, attend=attend)
    memory = tf.constant(np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(memory)
        logits, _ = decoder(np.ones((2, 9), "int32"), memory)
    gradients = tape.gradient(logits, [memory, *decoder.trainable_variables])
    assert all(gradient is not None for gradient in gradients)
    assert sorted(shapes) == expected
