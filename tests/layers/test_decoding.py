"""The decoder's step and its call, and the searches, against exhaustive search and one another."""

import itertools
import tempfile

import keras
import numpy as np
import pytest
from keras import ops

import layers
from tests.layers import decoding_cases, running
from tests.layers.case import MASK, SEQUENCES, B, D, U
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused

START, END, VOCABULARY = 1, 2, 6
NEEDS_TENSORFLOW = pytest.mark.skipif(
    running.BACKEND != "tensorflow", reason="exports are made from the TensorFlow backend alone"
)


def tensors(*given):
    return [ops.convert_to_tensor(x) for x in given]


MEMORY, MEMORY_MASK = tensors(SEQUENCES.astype("float32"), MASK)


@pytest.mark.parametrize("case", decoding_cases.ATTENTION, ids=str)
def test_scanning_the_step_gives_the_call(case):
    layer = case.build("float32")
    states = [ops.cast(s, "float32") for s in tensors(*case.initial_state())]
    tokens = ops.convert_to_tensor(np.random.default_rng(1).integers(0, 4, (B, 7)))
    logits, weights = layer(tokens, MEMORY, initial_state=states, mask=MEMORY_MASK)
    states = layer.first_states(MEMORY, states)
    for t in range(7):
        one, states, looks = layer.step(tokens[:, t], states, MEMORY, mask=MEMORY_MASK)
        assert_near([running.numpy(one)], [running.numpy(logits[:, t])], 1e-5)
        assert_near([running.numpy(looks)], [running.numpy(weights[:, t])], 1e-5)


@pytest.mark.parametrize("case", decoding_cases.ATTENTION, ids=str)
def test_several_rows_to_one_memory(case):
    layer, rng = case.build("float32"), np.random.default_rng(1)
    states = layer.first_states(ops.repeat(MEMORY, 3, axis=0))
    states = [ops.convert_to_tensor(rng.normal(size=s.shape).astype("float32")) for s in states]
    tokens = ops.convert_to_tensor(rng.integers(0, 4, 3 * B))
    together = layer.step(tokens, states, MEMORY, mask=MEMORY_MASK)
    repeated = [ops.repeat(x, 3, axis=0) for x in (MEMORY, MEMORY_MASK)]
    alone = layer.step(tokens, states, repeated[0], mask=repeated[1])
    flat = [[running.numpy(x) for x in keras.tree.flatten(found)] for found in (together, alone)]
    assert_near(flat[0], flat[1], 1e-5)


def test_scanning_the_step_of_a_decoder_without_attention():
    layer = decoding_cases.CASES[0].build("float32")
    first = MEMORY[:, 0]
    tokens = ops.convert_to_tensor(np.random.default_rng(1).integers(0, 4, (B, 7)))
    logits = layer(tokens, first_input=first)
    states, step = layer.first_states(B, first_input=first), layer.stepper()
    for t in range(7):
        one, states, weights = step(tokens[:, t], states)
        assert weights is None
        assert_near([running.numpy(one)], [running.numpy(logits[:, t])], 1e-5)


def test_several_sentences_to_one_memory():
    """Three sentences an example with one memory give what they give with three."""
    layer, rng = decoding_cases.ATTENTION[1].build("float32"), np.random.default_rng(1)
    tokens = ops.convert_to_tensor(rng.integers(0, 4, (3 * B, 5)))
    states = [
        ops.convert_to_tensor(rng.normal(size=(3 * B, size)).astype("float32"))
        for size in layer.cell_state_sizes
    ]
    together = layer(tokens, MEMORY, initial_state=states, mask=MEMORY_MASK)
    memory, mask = (ops.repeat(x, 3, axis=0) for x in (MEMORY, MEMORY_MASK))
    alone = layer(tokens, memory, initial_state=states, mask=mask)
    assert_near(*([running.numpy(x) for x in found] for found in (together, alone)), 1e-5)


def test_a_plain_lstm_cell_and_the_context_cell_without_context_are_one():
    """What stands last in the cell's input is the context: a cell without one takes it as input."""
    found = []
    for cell in (layers.LSTMCell(U), layers.ContextLSTMCell(U), keras.layers.LSTMCell(U)):
        decoder = layers.AttentionDecoder(5, 2, [cell], layers.BahdanauAttention(7))
        tokens = ops.convert_to_tensor(np.ones((B, 4), "int32"))
        decoder(tokens, MEMORY)
        rng = np.random.default_rng(2)
        decoder.set_weights([rng.normal(size=w.shape) for w in decoder.weights])
        found.append(running.numpy(decoder(tokens, MEMORY)[0]))
    assert_near(found[1:], [found[0]] * 2, 1e-5)


def test_scheduled_sampling_reads_its_own_words():
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
    # By hand: the first word is given, each other is the likeliest of the step before.
    states, word = always.first_states(MEMORY), tokens[:, 0]
    for t in range(9):
        logits, states, _ = always.step(word, states, MEMORY)
        assert_near([trained[:, t]], [running.numpy(logits)], 1e-5)
        word = ops.argmax(logits, axis=-1)
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


def toy_step(seed=0, vocabulary=VOCABULARY, scale=2.0):
    """A step whose logits hang on all words so far, and on the example; the state holds both."""
    rng = np.random.default_rng(seed)
    embedding, matrix = rng.normal(size=(vocabulary, 5)), rng.normal(size=(5, 5))
    output = scale * rng.normal(size=(5, vocabulary))
    embedding, matrix, output = (x.astype("float32") for x in (embedding, matrix, output))

    def step(tokens, states):
        h = ops.tanh(ops.matmul(states[0], matrix) + ops.take(embedding, tokens, axis=0))
        return ops.matmul(h, output), [h], ops.softmax(h, axis=-1)

    return step


def toy_states(batch=3, seed=1):
    return [ops.convert_to_tensor(np.random.default_rng(seed).normal(size=(batch, 5)), "float32")]


def walk(step, state, words) -> tuple[float, np.ndarray]:
    """The log probability of words after START, and the weights of each step."""
    total, looks, before = 0.0, [], START
    for word in words:
        logits, state, weights = step(ops.convert_to_tensor([before]), state)
        total += float(ops.log_softmax(logits)[0, word])
        looks.append(running.numpy(weights)[0])
        before = word
    return total, np.array(looks)


def sequences(length: int, vocabulary: int):
    """All sequences that end within so many steps, and all that do not."""
    words = [w for w in range(vocabulary) if w != END]
    for n in range(length):
        for body in itertools.product(words, repeat=n):
            yield (*body, END)


def of(states, row: int):
    return [s[row : row + 1] for s in states]


@pytest.mark.parametrize("penalty", [0.0, 0.8])
def test_a_beam_of_all_prefixes_is_exhaustive_search(penalty):
    step, states, vocabulary = toy_step(vocabulary=4), toy_states(), 4
    found = layers.beam_search(
        step,
        states,
        start=START,
        end=END,
        max_length=4,
        beam_width=81,
        best=10,
        length_penalty=penalty,
    )
    for row in range(3):
        scored = {}
        for words in sequences(4, vocabulary):
            log_prob, _ = walk(step, of(states, row), words)
            scored[words] = (log_prob / ((5 + len(words)) / 6) ** penalty, log_prob)
        ordered = sorted(scored, key=scored.get, reverse=True)[:10]
        lengths = running.numpy(found.lengths)[row]
        tokens = running.numpy(found.tokens)[row]
        assert [tuple(w[:n]) for w, n in zip(tokens, lengths, strict=True)] == [
            words[:-1] for words in ordered
        ]
        assert_near(
            [running.numpy(found.scores)[row], running.numpy(found.log_probabilities)[row]],
            list(zip(*(scored[words] for words in ordered), strict=True)),
            1e-4,
        )


def test_coverage_is_counted_as_gnmt_does():
    step, states = toy_step(vocabulary=4), toy_states()
    mask = np.array([[1, 1, 1, 0, 0]] * 3, "bool")
    found = layers.beam_search(
        step,
        states,
        start=START,
        end=END,
        max_length=4,
        beam_width=81,
        coverage_penalty=0.7,
        memory_mask=mask,
    )
    for row in range(3):
        best = -np.inf
        for words in sequences(4, 4):
            log_prob, looks = walk(step, of(states, row), words)
            covered = np.log(np.minimum(looks.sum(axis=0), 1))[:3].sum()
            best = max(best, log_prob + 0.7 * covered)
        assert float(found.scores[row, 0]) == pytest.approx(best, abs=1e-4)


def test_greedy_by_hand_and_a_beam_of_one():
    step, states = toy_step(3), toy_states(5)
    options = {"start": START, "end": END, "max_length": 8}
    found = layers.greedy(step, states, **options)
    beam = layers.beam_search(step, states, beam_width=1, length_penalty=0.6, **options)
    for row in range(5):
        words, state, before = [], of(states, row), START
        while len(words) < 8 and before != END:
            logits, state, _ = step(ops.convert_to_tensor([before]), state)
            before = int(ops.argmax(logits[0]))
            words.append(before)
        log_prob, looks = walk(step, of(states, row), words)
        kept = [w for w in words if w != END]
        assert int(found.lengths[row]) == len(kept)
        assert running.numpy(found.tokens)[row].tolist() == kept + [0] * (8 - len(kept))
        assert float(found.log_probabilities[row]) == pytest.approx(log_prob, abs=1e-4)
        alignments = running.numpy(found.alignments)[row]
        assert_near([alignments[: len(words)]], [looks], 1e-5)
        assert not alignments[len(words) :].any()
    for name in ("tokens", "lengths", "log_probabilities", "alignments"):
        one = running.numpy(getattr(beam, name))[:, 0]
        assert_near([one], [running.numpy(getattr(found, name))], 1e-5, name)


@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search])
def test_a_batch_gives_what_each_gives_alone(search):
    decoder = decoding_cases.ATTENTION[0].build("float32")
    options = {"start": START, "end": END, "max_length": 6}
    states = decoder.first_states(MEMORY)
    together = search(decoder.stepper(MEMORY, MEMORY_MASK), states, **options)
    for row, keep in enumerate(MASK):
        if keep.any():
            memory = ops.convert_to_tensor(running.numpy(MEMORY)[row : row + 1, keep])
            alone = search(decoder.stepper(memory), decoder.first_states(memory), **options)
            for name in ("tokens", "lengths", "log_probabilities"):
                whole = running.numpy(getattr(together, name))[row]
                assert_near([running.numpy(getattr(alone, name))[0]], [whole], 1e-5, name)


@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search, layers.sample])
def test_rules(search):
    step, states = toy_step(5), toy_states(4)
    options = {"start": np.array([START] * 4), "end": END, "max_length": 9}
    seed = {"seed": 3} if search is layers.sample else {}

    def words(**rules):
        found = search(step, states, **options, **rules, **seed)
        tokens = ops.reshape(found.tokens, (4, 9))
        lengths = running.numpy(found.lengths).reshape(4)
        return [row[:n].tolist() for row, n in zip(running.numpy(tokens), lengths, strict=True)]

    assert min(map(len, words())) < 6
    assert min(map(len, words(min_length=6))) >= 6
    assert words(min_length=9) == [row for row in words(min_length=9) if len(row) == 9]
    prefix = np.array([[3, -1, 4], [4, 3, -1], [-1, -1, 3], [5, 5, 5]])
    for row, start in zip(words(min_length=3, prefix=prefix), prefix, strict=True):
        assert [w for w, p in zip(row, start, strict=False) if p >= 0] == [
            p for p in start if p >= 0
        ]
    assert any(_repeats(row, 2) for row in words(min_length=9))
    for n in (1, 2, 3):
        assert not any(_repeats(row, n) for row in words(min_length=5, no_repeat=n))


def _repeats(words, n: int) -> bool:
    grams = list(zip(*(words[k:] for k in range(n)), strict=False))
    return len(grams) > len(set(grams))


def test_pad_fills_the_rest():
    found = layers.greedy(toy_step(3), toy_states(5), start=1, end=END, max_length=8, pad=-7)
    for row, n in zip(running.numpy(found.tokens), running.numpy(found.lengths), strict=True):
        assert (row[n:] == -7).all()
        assert (row[:n] != -7).all()


def test_samples_follow_the_probabilities():
    """The words of 4,000 first steps, in all, with temperature, of the top two, of the top 0.7."""
    logits = np.log(np.array([0.1, 0.4, 0.05, 0.2, 0.25]))

    def step(tokens, states):
        rows = ops.shape(tokens)[0]
        return ops.broadcast_to(ops.convert_to_tensor(logits, "float32"), (rows, 5)), states, None

    def frequencies(**options):
        found = layers.sample(
            step, [ops.zeros((4000, 1))], start=0, end=9, max_length=1, seed=1, **options
        )
        assert found.alignments is None
        return np.bincount(running.numpy(found.tokens)[:, 0], minlength=5) / 4000

    probs = np.exp(logits)
    cold = probs**2 / (probs**2).sum()
    two = np.array([0, 0.4, 0, 0, 0.25]) / 0.65
    three = np.array([0, 0.4, 0, 0.2, 0.25]) / 0.85
    np.testing.assert_allclose(frequencies(), probs, atol=0.03)
    np.testing.assert_allclose(frequencies(temperature=0.5), cold, atol=0.03)
    np.testing.assert_allclose(frequencies(top_k=2), two, atol=0.03)
    np.testing.assert_allclose(frequencies(top_p=0.7), three, atol=0.03)
    np.testing.assert_allclose(frequencies(top_p=0.3), [0, 1, 0, 0, 0])


def test_a_seed_fixes_samples_and_a_generator_does_not():
    step, states = toy_step(5), toy_states(20)

    def tokens(seed):
        return running.numpy(layers.sample(step, states, start=1, end=END, seed=seed).tokens)

    assert (tokens(1) == tokens(1)).all()
    assert (tokens(1) != tokens(2)).any()
    generator = keras.random.SeedGenerator(1)
    assert (tokens(generator) != tokens(generator)).any()


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("search", [layers.greedy, layers.sample, layers.beam_search])
@pytest.mark.parametrize("compiler", [False, True])
def test_searches_compile(search, compiler):
    import tensorflow as tf

    decoder = decoding_cases.ATTENTION[2].build("float32")
    options = {"start": START, "end": END, "max_length": 7, "no_repeat": 2}
    options |= {"seed": 1} if search is layers.sample else {}

    def run(memory, mask):
        found = search(decoder.stepper(memory, mask), decoder.first_states(memory), **options)
        return found._asdict()

    compiled = tf.function(run, jit_compile=compiler)
    # XLA has random numbers of its own.
    own = compiler and search is layers.sample
    eager = (compiled if own else run)(MEMORY, MEMORY_MASK)
    if not compiler:  # for any batch and length
        specs = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], tf.bool)]
        compiled = tf.function(run, input_signature=specs)
    found = compiled(MEMORY, MEMORY_MASK)
    for name in ("tokens", "lengths"):
        assert (found[name].numpy() == eager[name].numpy()).all()
    for name in ("log_probabilities", "alignments"):
        assert_near([found[name]], [eager[name]], 1e-4)


@pytest.mark.skipif(running.BACKEND != "jax", reason="jit is JAX's")
@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search])
def test_searches_compile_in_jax(search):
    import jax

    decoder = decoding_cases.ATTENTION[2].build("float32")

    def run(memory, mask):
        states = decoder.first_states(memory)
        found = search(decoder.stepper(memory, mask), states, start=START, end=END, max_length=7)
        return found.tokens, found.log_probabilities

    eager, compiled = run(MEMORY, MEMORY_MASK), jax.jit(run)(MEMORY, MEMORY_MASK)
    assert (running.numpy(eager[0]) == running.numpy(compiled[0])).all()
    assert_near([running.numpy(eager[1])], [running.numpy(compiled[1])], 1e-4)


@NEEDS_TENSORFLOW
def test_from_text_to_the_n_best_texts_in_one_file():
    """A model with a decoder: saved, reloaded, exported with its beam, and greedy in LiteRT."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from layers.litert_tensorflow import convert

    words = ["", "<start>", "<end>", "one", "two", "three"]
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
    logits, _ = decoder(given, encoded, initial_state=[h, c], mask=mask)
    with tempfile.TemporaryDirectory() as folder:
        keras.Model([source, given], logits).save(f"{folder}/model.keras")
        model = keras.saving.load_model(f"{folder}/model.keras")
        decoder = model.get_layer("decoder")

        def encode(ids):
            mask = ops.not_equal(ids, 0)
            embedded = model.get_layer("embedding")(ids)
            encoded, *states = model.get_layer("encoder")(embedded, mask=mask)
            return decoder.stepper(encoded, mask), decoder.first_states(encoded, states)

        table = tf.constant(words)
        options = {"start": START, "end": END, "max_length": 5}

        class Service(tf.Module):
            def __init__(self):
                self.model = model

            @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
            def serve(self, text):
                pieces = tf.strings.split(text).to_tensor("")
                ids = tf.argmax(pieces[..., None] == table, axis=-1, output_type=tf.int32)
                found = layers.beam_search(*encode(ids), beam_width=4, best=3, **options)
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
        return {"tokens": found.tokens, "lengths": found.lengths, "looks": found.alignments}

    file = convert(greedy, {"source": tf.TensorSpec([None, None], tf.int32)})
    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
    for ids in ([[3, 4, 5], [4, 0, 0]], [[5, 5, 5, 5, 3]]):
        found = runner(source=np.array(ids, "int32"))
        wanted = greedy(tf.constant(ids))
        assert (found["tokens"] == wanted["tokens"].numpy()).all()
        assert (found["lengths"] == wanted["lengths"].numpy()).all()
        assert_near([found["looks"]], [wanted["looks"]], 1e-5)


CELLS = [layers.LSTMCell(4)]
DECODER = {"vocabulary_size": 5, "embedding_size": 3, "cells": CELLS}
BAHDANAU = layers.BahdanauAttention(7)
SEARCH = {"start": 1, "end": 2, "max_length": 5}


def decoder(**options):
    return layers.AttentionDecoder(**{**DECODER, "attention": BAHDANAU, **options})


def search(function=layers.beam_search, **options):
    return function(toy_step(), toy_states(), **{**SEARCH, **options})


def blind(tokens, states):
    logits, states, _ = toy_step()(tokens, states)
    return logits, states, None


REFUSED = [
    (lambda: decoder(vocabulary_size=0), ["vocabulary_size", "0"]),
    (lambda: decoder(embedding_size=-1), ["embedding_size", "-1"]),
    (lambda: decoder(cells=[]), ["at least one cell"]),
    (lambda: decoder(cells=[layers.LSTMCell(4, dropout=0.5, name="wet")]), ["wet", "decoder's"]),
    (lambda: decoder(attention="additive"), ["attention", "'additive'"]),
    (lambda: decoder(attend="between"), ["attend", "before", "'between'"]),
    (lambda: decoder(attend="after"), ["LuongAttention"]),
    (lambda: decoder(attend="after", attention=layers.LuongAttention()), ["units"]),
    (
        lambda: decoder(attend="after", attention=layers.LuongAttention(7), tied=True)(
            np.ones((B, 2), "int32"), MEMORY
        ),
        ["tied", "3", "7"],
    ),
    (
        lambda: decoder(attend="after", attention=layers.LuongAttention(7), gated=True),
        ["gated", "before"],
    ),
    (lambda: layers.RecurrentDecoder(5, 3, []), ["RecurrentDecoder", "at least one cell"]),
    (
        lambda: layers.RecurrentDecoder(5, 3, CELLS, tied=True)(np.ones((B, 2), "int32")),
        ["tied", "3", "4"],
    ),
    (lambda: decoder(scheduled_sampling=2.0), ["scheduled_sampling", "2.0"]),
    (
        lambda: decoder()(np.ones((B, 2), "int32"), MEMORY, initial_state=[np.zeros((B, 3))] * 2),
        ["[4, 4]", "[3, 3]", "Dense"],
    ),
    (lambda: search(beam_width=0), ["beam_width", "0"]),
    (lambda: search(best=6), ["best", "6 of 5"]),
    (lambda: search(coverage_penalty=-1.0), ["coverage_penalty", "-1.0"]),
    (
        lambda: layers.beam_search(blind, toy_states(), **SEARCH, coverage_penalty=1.0),
        ["coverage_penalty", "weights"],
    ),
    (lambda: search(max_length=0), ["max_length", "0"]),
    (lambda: search(min_length=6), ["min_length", "6 and 5"]),
    (lambda: search(no_repeat=-1), ["no_repeat", "-1"]),
    (lambda: search(prefix=np.ones((3, 6), "int32")), ["prefix", "5", "(3, 6)"]),
    (lambda: search(layers.sample, temperature=0.0), ["temperature", "0.0"]),
    (lambda: search(layers.sample, top_k=-1), ["top_k", "-1"]),
    (lambda: search(layers.sample, top_p=0.0), ["top_p", "0.0"]),
]


@pytest.mark.parametrize(("action", "words"), REFUSED)
def test_refused(action, words):
    assert_refused(action, *words)
