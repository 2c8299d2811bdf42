"""The decoders: step and call, scheduled sampling, and a complete model with its search."""

import tempfile

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import decoding_cases, running
from tests.layers.case import MASK, SEQUENCES, B, D, U
from tests.layers.checks import assert_near
from tests.layers.decoding_cases import make_decoder, random_weights
from tests.layers.recurrent_checks import assert_refused
from unroll import layers

START, END = 1, 2
NEEDS_TENSORFLOW = pytest.mark.skipif(
    running.BACKEND != "tensorflow", reason="exports need the TensorFlow backend"
)


def tensors(*given):
    return [ops.convert_to_tensor(x) for x in given]


MEMORY, MEMORY_MASK = tensors(SEQUENCES.astype("float32"), MASK)


@pytest.mark.parametrize("case", decoding_cases.ATTENTION, ids=str)
def test_step_by_step_equals_the_call(case):
    layer = case.build("float32")
    states = [ops.cast(s, "float32") for s in tensors(*case.initial_state())]
    tokens = ops.convert_to_tensor(np.random.default_rng(1).integers(0, 4, (B, 7)))
    logits, weights = layer(tokens, MEMORY, initial_state=states, memory_mask=MEMORY_MASK)
    states = layer.initial_states(MEMORY, states)
    for t in range(7):
        one, states, attention = layer.step(tokens[:, t], states, MEMORY, memory_mask=MEMORY_MASK)
        assert_near([running.numpy(one)], [running.numpy(logits[:, t])], 1e-5)
        assert_near([running.numpy(attention)], [running.numpy(weights[:, t])], 1e-5)


@pytest.mark.parametrize("case", decoding_cases.ATTENTION, ids=str)
def test_several_rows_of_one_memory(case):
    layer, rng = case.build("float32"), np.random.default_rng(1)
    states = layer.initial_states(ops.repeat(MEMORY, 3, axis=0))
    states = [ops.convert_to_tensor(rng.normal(size=s.shape).astype("float32")) for s in states]
    tokens = ops.convert_to_tensor(rng.integers(0, 4, 3 * B))
    together = layer.step(tokens, states, MEMORY, memory_mask=MEMORY_MASK)
    repeated = [ops.repeat(x, 3, axis=0) for x in (MEMORY, MEMORY_MASK)]
    alone = layer.step(tokens, states, repeated[0], memory_mask=repeated[1])
    flat = [[running.numpy(x) for x in keras.tree.flatten(found)] for found in (together, alone)]
    assert_near(flat[0], flat[1], 1e-5)


def test_step_by_step_without_attention():
    layer = decoding_cases.CASES[0].build("float32")
    first = MEMORY[:, 0]
    tokens = ops.convert_to_tensor(np.random.default_rng(1).integers(0, 4, (B, 7)))
    logits = layer(tokens, first_input=first)
    states, step = layer.initial_states(B, first_input=first), layer.step_function()
    for t in range(7):
        one, states, weights = step(tokens[:, t], states)
        assert weights is None
        assert_near([running.numpy(one)], [running.numpy(logits[:, t])], 1e-5)


def test_several_sequences_of_one_memory():
    """Three sequences with one memory give the same as with three copies of it."""
    layer, rng = decoding_cases.ATTENTION[1].build("float32"), np.random.default_rng(1)
    tokens = ops.convert_to_tensor(rng.integers(0, 4, (3 * B, 5)))
    states = [
        ops.convert_to_tensor(rng.normal(size=(3 * B, size)).astype("float32"))
        for size in layer.cell_state_sizes
    ]
    together = layer(tokens, MEMORY, initial_state=states, memory_mask=MEMORY_MASK)
    memory, mask = (ops.repeat(x, 3, axis=0) for x in (MEMORY, MEMORY_MASK))
    alone = layer(tokens, memory, initial_state=states, memory_mask=mask)
    assert_near(*([running.numpy(x) for x in found] for found in (together, alone)), 1e-5)


def test_cells_without_a_context_read_it_as_their_input():
    """The context is the last part of the input of a cell."""
    found = []
    for cell in (layers.LSTMCell(U), layers.ContextLSTMCell(U), keras.layers.LSTMCell(U)):
        decoder = layers.AttentionDecoder(5, 2, [cell], layers.BahdanauAttention(7))
        tokens = ops.convert_to_tensor(np.ones((B, 4), "int32"))
        decoder(tokens, MEMORY)
        rng = np.random.default_rng(2)
        decoder.set_weights([rng.normal(size=w.shape) for w in decoder.weights])
        found.append(running.numpy(decoder(tokens, MEMORY)[0]))
    assert_near(found[1:], [found[0]] * 2, 1e-5)


def test_scheduled_sampling_reads_predicted_tokens():
    def decoder(probability):
        keras.utils.set_random_seed(3)
        layer = decoding_cases.bahdanau(scheduled_sampling=probability, seed=1)
        layer(np.ones((B, 2), "int32"), MEMORY)
        rng = np.random.default_rng(2)
        layer.set_weights(
            [rng.normal(size=w.shape) if len(w.shape) else w.numpy() for w in layer.weights]
        )
        return layer

    tokens = ops.convert_to_tensor(np.random.default_rng(1).integers(0, 4, (B, 9)))
    always = decoder(1.0)
    trained = running.numpy(always(tokens, MEMORY, training=True)[0])
    plain = running.numpy(always(tokens, MEMORY)[0])
    # The first token is given; each other token is the most probable of the previous step.
    states, token = always.initial_states(MEMORY), tokens[:, 0]
    for t in range(9):
        logits, states, _ = always.step(token, states, MEMORY)
        assert_near([trained[:, t]], [running.numpy(logits)], 1e-5)
        token = ops.argmax(logits, axis=-1)
    assert abs(trained - plain).max() > 0.1
    always.sampling_probability.assign(0.0)
    assert_near([running.numpy(always(tokens, MEMORY, training=True)[0])], [plain], 1e-5)
    half = decoder(0.5)
    mixed = running.numpy(half(tokens, MEMORY, training=True)[0])
    assert abs(mixed - plain).max() > 0.1
    assert abs(mixed - trained).max() > 0.1


@NEEDS_TENSORFLOW
def test_scheduled_sampling_trains_on_batches_of_any_size():
    import tensorflow as tf

    layer = decoding_cases.bahdanau(scheduled_sampling=0.5, seed=1)
    layer(np.ones((B, 2), "int32"), MEMORY)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None, D])]
    )
    def gradients(tokens, memory):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(tokens, memory, training=True)[0]))
        return tape.gradient(loss, layer.trainable_weights)

    for found in gradients(tf.ones([B, 4], tf.int32), MEMORY):
        assert np.abs(running.numpy(tf.convert_to_tensor(found))).max() > 0


@pytest.mark.exhaustive
@NEEDS_TENSORFLOW
def test_a_saved_model_from_text_to_the_n_best_texts():
    """A saved and loaded model, exported with beam search, and with greedy search to LiteRT."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.layers.litert_tensorflow import convert

    vocabulary = ["", "<start>", "<end>", "one", "two", "three"]
    source = keras.Input((None,), dtype="int32", name="source")
    given = keras.Input((None,), dtype="int32", name="given")
    mask = ops.not_equal(source, 0)
    x = keras.layers.Embedding(6, 4, name="embedding")(source)
    encoded, h, c = layers.LSTM(8, return_sequences=True, return_state=True, name="encoder")(
        x, mask=mask
    )
    decoder = layers.AttentionDecoder(
        6, 4, [layers.LSTMCell(8)], layers.BahdanauAttention(5), name="decoder"
    )
    logits, _ = decoder(given, encoded, initial_state=[h, c], memory_mask=mask)
    with tempfile.TemporaryDirectory() as folder:
        keras.Model([source, given], logits).save(f"{folder}/model.keras")
        model = keras.saving.load_model(f"{folder}/model.keras")
        decoder = model.get_layer("decoder")

        def encode(ids):
            mask = ops.not_equal(ids, 0)
            embedded = model.get_layer("embedding")(ids)
            encoded, *states = model.get_layer("encoder")(embedded, mask=mask)
            return decoder.step_function(encoded, mask), decoder.initial_states(encoded, states)

        table = tf.constant(vocabulary)
        options = {"start": START, "end": END, "max_length": 5}

        class Service(tf.Module):
            def __init__(self):
                self.model = model

            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
            def serve(self, text):
                pieces = tf.strings.split(text).to_tensor("")
                ids = tf.argmax(pieces[..., None] == table, axis=-1, output_type=tf.int32)
                found = layers.beam_search(
                    *encode(ids), beam_width=4, num_return_sequences=3, **options
                )
                texts = tf.strings.reduce_join(
                    tf.gather(table, found.tokens), axis=-1, separator=" "
                )
                return {"texts": tf.strings.strip(texts), "scores": found.scores}

        service = Service()
        text = tf.constant(["one two three", "two", "three three"])
        expected = service.serve(text)
        tf.saved_model.save(service, f"{folder}/1", signatures={"serving_default": service.serve})
        served = tf.saved_model.load(f"{folder}/1").signatures["serving_default"](text=text)
    assert served["texts"].shape == (3, 3)
    assert (served["texts"].numpy() == expected["texts"].numpy()).all()
    assert_near([served["scores"]], [expected["scores"]], 1e-5)

    def greedy(source):
        found = layers.greedy(*encode(source), **options)
        return {"tokens": found.tokens, "lengths": found.lengths, "weights": found.alignments}

    file = convert(greedy, {"source": tf.TensorSpec([None, None], tf.int32)})
    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
    for ids in ([[3, 4, 5], [4, 0, 0]], [[5, 5, 5, 5, 3]]):
        found = runner(source=np.array(ids, "int32"))
        wanted = greedy(tf.constant(ids))
        assert (found["tokens"] == wanted["tokens"].numpy()).all()
        assert (found["lengths"] == wanted["lengths"].numpy()).all()
        assert_near([found["weights"]], [wanted["weights"]], 1e-5)


@pytest.mark.parametrize("make", [decoding_cases.recurrent, decoding_cases.bahdanau])
def test_checkpoints_load_with_and_without_scheduled_sampling(make, tmp_path):
    def model(**options):
        decoder = make(**options)
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        memory = keras.Input((None, D), name="memory")
        inputs = [tokens, memory] if isinstance(decoder, layers.AttentionDecoder) else [tokens]
        return decoder, keras.Model(inputs, decoder(*inputs))

    def plain_weights(decoder):
        return [w for w in decoder.weights if w is not decoder.sampling_probability]

    plain, plain_model = model()
    sampling, sampling_model = model(scheduled_sampling=0.25, dropout=0.5)
    for decoder in (plain, sampling):
        rng = np.random.default_rng(2)
        for w in plain_weights(decoder):
            w.assign(rng.normal(size=w.shape))
    sampling.sampling_probability.assign(0.125)
    expected = [running.numpy(w) for w in plain_weights(plain)]
    for source, options, probability in (
        (sampling_model, {}, None),
        (sampling_model, {"scheduled_sampling": 0.5, "dropout": 0.25}, 0.125),
        (plain_model, {"scheduled_sampling": 0.5, "dropout": 0.25}, 0.5),
        (plain_model, {}, None),
    ):
        source.save_weights(tmp_path / "source.weights.h5")
        decoder, target = model(**options)
        target.load_weights(tmp_path / "source.weights.h5")
        assert_near([running.numpy(w) for w in plain_weights(decoder)], expected, 0)
        if probability is not None:
            assert float(decoder.sampling_probability) == probability
    wrong = layers.RecurrentDecoder(5, D, [layers.GRUCell(D)], tie_weights=True)
    wrong.build((None, None))
    assert_refused(
        lambda: wrong.load_own_variables({str(k): 0.0 for k in range(3)}), "1 weight", "3"
    )


@NEEDS_TENSORFLOW
@pytest.mark.parametrize(("attend", "compiled"), [("before", False), ("after", True)])
@pytest.mark.exhaustive
def test_second_derivatives(attend, compiled):
    """The derivative of the gradient in a direction equals its finite difference, also in XLA."""
    import tensorflow as tf

    decoder = make_decoder(attend, dtype="float64")
    rng = np.random.default_rng(4)
    tokens = tf.constant(rng.integers(0, 20, (2, 4)), tf.int32)
    memory, direction = (tf.constant(rng.normal(size=(2, 5, D))) for _ in range(2))
    decoder(tokens, memory)
    random_weights(decoder)

    def gradient(memory):
        with tf.GradientTape() as tape:
            tape.watch(memory)
            loss = tf.reduce_sum(tf.sin(decoder(tokens, memory)[0]))
        return tape.gradient(loss, memory)

    def second(memory):
        with tf.GradientTape() as tape:
            tape.watch(memory)
            slope = tf.reduce_sum(gradient(memory) * direction)
        return tape.gradient(slope, memory)

    found = tf.function(second, jit_compile=compiled, autograph=False)(memory)
    moved = [gradient(memory + sign * 1e-5 * direction) for sign in (1, -1)]
    assert_near([found], [(moved[0] - moved[1]) / 2e-5], 1e-6)


@pytest.mark.parametrize("attend", ["before", "after"])
def test_the_dropout_of_tokens_and_of_outputs(attend):
    """That of the outputs leaves the attention as it is."""

    def call(training, **options):
        layer = make_decoder(attend, seed=1, **options)
        layer.build((None, None), MEMORY.shape)
        rng = np.random.default_rng(0)
        for weight in layer.trainable_weights:
            weight.assign(rng.normal(size=weight.shape))
        return [np.array(x) for x in layer(np.ones((B, 3), "int32"), MEMORY, training=training)]

    expected, weights = call(False)
    of_output, same = call(True, output_dropout=0.5)
    assert_near([same], [weights], 1e-6)
    assert np.abs(of_output - expected).max() > 0.1
    _, other = call(True, dropout=0.5, output_dropout=0.0)
    assert np.abs(other - weights).max() > 0.01


def test_dropout_between_cells_is_the_same_at_each_step(monkeypatch):
    cells = [layers.LSTMCell(40), layers.GRUCell(8)]
    decoder = layers.RecurrentDecoder(50, 8, cells, cell_dropout=0.5, seed=1)
    decoder.build((None, None))
    assert decoder.kept_units(B, False) == [None, None]
    first, units = decoder.kept_units(B, True)
    assert first is None
    assert set(np.unique(ops.convert_to_numpy(units))) == {0.0, 2.0}
    assert len(np.unique(ops.convert_to_numpy(units), axis=0)) == B
    tokens = np.arange(3 * B).reshape(B, 3)
    without = ops.convert_to_numpy(decoder(tokens))
    monkeypatch.setattr(decoder, "kept_units", lambda *_: [None, units])
    states, expected = decoder.initial_states(B), []
    for step in range(3):
        h, states = decoder.run_cells(decoder.embedding(tokens[:, step]), states, [None, units])
        expected.append(ops.convert_to_numpy(decoder.logits(h)))
    found = ops.convert_to_numpy(decoder(tokens, training=True))
    assert_near([found], [np.stack(expected, axis=1)], 1e-5)
    assert np.abs(found - without).max() > 1e-3


@pytest.mark.parametrize("attend", ["before", "after"])
def test_dropout_between_cells_with_attention(attend):
    attention = layers.BahdanauAttention(6) if attend == "before" else layers.LuongAttention(8)
    cells = [layers.LSTMCell(6), layers.LSTMCell(5)]
    layer = layers.AttentionDecoder(20, 8, cells, attention, attend, cell_dropout=0.5, seed=1)
    same, _ = layer(np.ones((B, 3), "int32"), MEMORY)
    other, _ = layer(np.ones((B, 3), "int32"), MEMORY, training=True)
    assert np.abs(np.array(same) - np.array(other)).max() > 1e-4


@pytest.mark.parametrize("tie_weights", [False, True])
def test_the_embedding_has_its_initializer(tie_weights):
    cells = [layers.LSTMCell(8)]
    initializer = keras.initializers.RandomNormal(stddev=1.0)
    decoder = layers.RecurrentDecoder(
        50, 8, cells, tie_weights=tie_weights, embeddings_initializer=initializer
    )
    decoder.build((None, None))
    assert 0.9 < np.std(np.array(decoder.embedding.embeddings)) < 1.1


CELLS = [layers.LSTMCell(4)]
DECODER = {"vocabulary_size": 5, "embedding_dim": 3, "cells": CELLS}
BAHDANAU = layers.BahdanauAttention(7)


def decoder(**options):
    return layers.AttentionDecoder(**{**DECODER, "attention": BAHDANAU, **options})


INVALID = [
    (lambda: decoder(vocabulary_size=0), ["vocabulary_size", "0"]),
    (lambda: decoder(embedding_dim=-1), ["embedding_dim", "-1"]),
    (lambda: decoder(cells=[]), ["at least one cell"]),
    (
        lambda: decoder(cells=[layers.LSTMCell(4, dropout=0.5, name="wet")]),
        ["AttentionDecoder", "'wet'", "dropout"],
    ),
    (lambda: decoder(attention="additive"), ["attention", "'additive'"]),
    (lambda: decoder(attend="between"), ["attend", "before", "'between'"]),
    (
        lambda: decoder(cells=[layers.LSTMCell(4, dtype="float16", name="half")]),
        ["AttentionDecoder", "'float32'", "'half'", "'float16'"],
    ),
    (
        lambda: decoder(attend="after", attention=layers.LuongAttention(7), tie_weights=True)(
            np.ones((B, 2), "int32"), MEMORY
        ),
        ["tie_weights", "3", "7"],
    ),
    (
        lambda: decoder(attend="after", attention=layers.LuongAttention(7), gated=True),
        ["gated", "before"],
    ),
    (lambda: layers.RecurrentDecoder(5, 3, []), ["RecurrentDecoder", "at least one cell"]),
    (
        lambda: layers.RecurrentDecoder(5, 3, CELLS, tie_weights=True)(np.ones((B, 2), "int32")),
        ["tie_weights", "3", "4"],
    ),
    (lambda: decoder(scheduled_sampling=2.0), ["scheduled_sampling", "2.0"]),
    (lambda: decoder(output_dropout=-0.5), ["output_dropout", "-0.5"]),
    (
        lambda: decoder()(np.ones((B, 2), "int32"), MEMORY, initial_state=[np.zeros((B, 3))] * 2),
        ["[4, 4]", "[3, 3]", "Dense"],
    ),
]


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)
