"""The language model: carried states, figures, continuations, what it serves."""

import dataclasses
import itertools
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parameters import first_of
from unroll.apps.core.protocol import Service, Trained
from unroll.apps.language_model import app, display, metrics, network
from unroll.apps.language_model.generation import Generator, SampleByInversion, StopAfter, units_of
from unroll.apps.shared.token_losses import MeanLoss, Perplexity, token_losses
from unroll.layers.recurrent import RECURRENT_LAYERS
from unroll.pipelines import language_modeling as modeling
from unroll.pipelines.text import MAX_TOKENS

VOCABULARY = [*modeling.SPECIAL, *"abcdefg "]
WORDS = [*modeling.SPECIAL, "the", "dog", "runs", "."]
SMALL = {
    "units_of_text": "characters", "units": 6, "embedding_dim": 5, "depth": 2, "batch_size": 3,
    "sequence_length": 8,
}  # fmt: skip
TEXTS = ["", "\n", "abc", "a漢 😀", "bad dad\n\nfeed bad", "a" * 300]


def make(vocabulary=VOCABULARY, seed: int = 0, **options) -> Trained:
    config = app.Config(**{**SMALL, "max_length": 12, **options})
    assets = {"vocabulary": vocabulary}
    model = app.build(config, assets)
    # Random weights, since initial biases of zero would hide a mistake.
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.8, size=weight.shape))
    return Trained(config, assets, model)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return make()


def with_options(trained: Trained, **options) -> Trained:
    return dataclasses.replace(trained, config=dataclasses.replace(trained.config, **options))


def logits_of(steps: network.Steps, tokens, mask) -> tuple:
    """The logits after each token of texts, and the last states."""
    outputs, states = steps.outputs(tokens, mask)
    return steps.logits(outputs), states


def whole_losses(trained: Trained, ids: np.ndarray) -> np.ndarray:
    """-log P of each id of a text that is read at once, from its start."""
    steps = network.Steps(trained.model, trained.config.tie_weights)
    tokens = np.concatenate([[modeling.END], ids[:-1]])[None]
    logits, _ = logits_of(steps, tf.constant(tokens), tf.ones(tokens.shape, bool))
    return token_losses(ids[None], logits)[0].numpy()[0]


class TestCarriedState:
    IDS = np.random.default_rng(2).integers(1, 9, 50)

    def losses(self, trained, batch_size, length) -> np.ndarray:
        dataset = modeling.evaluation_batches(self.IDS, batch_size, length)
        found = [(labels, nats) for _, labels, nats in metrics.losses(trained, dataset)]
        labels, nats = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        return nats[labels >= 0]

    @pytest.mark.parametrize("length", [8, 13, 50])
    def test_one_stream_in_pieces_is_the_whole_text(self, trained, length):
        expected = whole_losses(trained, self.IDS)
        for _ in range(2):  # a second evaluation starts from zeros again
            np.testing.assert_allclose(self.losses(trained, 1, length), expected, atol=2e-5)

    def test_parallel_streams_hardly_differ(self, trained):
        expected = whole_losses(trained, self.IDS)
        found = self.losses(trained, 3, 8)
        np.testing.assert_allclose(found, expected, atol=0.2)
        assert not np.allclose(found, expected, atol=1e-6)

    def test_training_has_states_of_its_own_and_no_gradient_into_the_past(self, trained):
        layer = trained.model.get_layer("carried")
        x = tf.random.normal([3, 4, 5])
        start, go_on = tf.ones([3], bool), tf.zeros([3], bool)
        with tf.GradientTape() as tape:
            tape.watch(x)
            layer(x, start, training=True)
            second = layer(tf.zeros_like(x), go_on, training=True)
        assert tape.gradient(second, x) is None
        before = [state.numpy() for state in layer.training_states]
        assert all(np.abs(state).max() > 0 for state in before)
        layer(x[:2], start[:2])
        for state, old in zip(layer.training_states, before, strict=True):
            np.testing.assert_array_equal(state.numpy(), old)
        # Fewer rows than before: the others are kept. Only the rows that start are reset.
        layer(x[:1], start[:1], training=True)
        states = [state.numpy() for state in layer.training_states]
        for state, old in zip(states, before, strict=True):
            np.testing.assert_array_equal(state[1:], old[1:])
            assert not np.allclose(state[0], old[0])

    def test_weights_do_not_depend_on_the_number_of_streams(self, trained, tmp_path):
        trained.model.save_weights(tmp_path / "a.weights.h5")
        other = make(batch_size=7, seed=1)
        other.model.load_weights(tmp_path / "a.weights.h5")
        np.testing.assert_allclose(
            whole_losses(other, self.IDS), whole_losses(trained, self.IDS), atol=1e-6
        )


@pytest.mark.parametrize(
    "cell",
    first_of([c for c in RECURRENT_LAYERS if c not in ("LSTM", "ContextLSTM")], "QRNN"),
)
def test_one_step_of_every_cell_is_the_layer(cell):
    assert_steps_are_the_layer(make(cell=cell, depth=1, units=12))


@pytest.mark.parametrize("tied", [False, True])
def test_one_step_of_residual_blocks_is_the_layer(tied):
    trained = make(cell="MinGRU", residual_blocks=True, tie_weights=tied, dropout=0.5)
    assert not [layer for layer in trained.model.layers if layer.name == "projection"]
    assert_steps_are_the_layer(trained)
    step = app.serve(trained).litert["step"].get_concrete_function().graph.as_graph_def()
    nodes = [*step.node, *(node for f in step.library.function for node in f.node_def)]
    assert not [node.op for node in nodes if "While" in node.op]


def assert_steps_are_the_layer(trained: Trained) -> None:
    steps = network.Steps(trained.model, trained.config.tie_weights)
    ids = tf.constant([[3, 4, 5, 1], [6, 7, 8, 2]])
    expected, last = logits_of(steps, ids, tf.ones([2, 4], bool))
    states = steps.initial_states(2)
    for t in range(4):
        logits, states = steps.step(ids[:, t], states)
        np.testing.assert_allclose(logits, expected[:, t], atol=1e-5)
    for found, own in zip(states, last, strict=True):
        np.testing.assert_allclose(found, own, atol=1e-5)


def test_tied_weights_are_those_of_the_embedding():
    tied, projected = make(tie_weights=True, embedding_dim=6), make(tie_weights=True)
    count = {name: t.model.count_params() for name, t in (("tied", tied), ("p", projected))}
    free = make(embedding_dim=6).model.count_params()
    size = len(VOCABULARY)
    assert free - count["tied"] == 6 * size
    assert projected.model.get_layer("projection").kernel.shape == (6, 5)
    logits = tied.model({"tokens": tf.constant([[3, 4]]), "start": tf.constant([True])})
    hidden = tied.model.get_layer("carried")(
        tied.model.get_layer("embedding")(tf.constant([[3, 4]])), tf.constant([True])
    )
    kernel = tied.model.get_layer("embedding").embeddings
    expected = hidden @ tf.transpose(kernel) + tied.model.get_layer("logits").bias
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    steps = network.Steps(tied.model, tie_weights=True)
    found, _ = logits_of(steps, tf.constant([[3, 4]]), tf.ones([1, 2], bool))  # without a warning
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dropout_has_one_mask_for_all_steps():
    trained = make(output_dropout=0.5, depth=1)
    drop = next(each for each in trained.model.layers if isinstance(each, keras.layers.Dropout))
    y = drop(tf.ones([2, 9, 6]), training=True).numpy()
    assert (y == y[:, :1]).all()
    assert not (y[0] == y[1]).all()
    stack = make(embedding_dropout=0.5, dropout=0.25).model.get_layer("carried").stack
    assert [layer.cell.dropout for layer in stack.layers] == [0.5, 0.25]


def test_loss_and_perplexity_leave_out_ignored_labels():
    logits = tf.random.normal([2, 3, 5], seed=1)
    labels = np.array([[0, -1, 4], [-1, -1, 2]])
    log_probs = tf.nn.log_softmax(logits).numpy()
    nats = -np.mean([log_probs[0, 0, 0], log_probs[0, 2, 4], log_probs[1, 2, 2]])
    assert float(MeanLoss()(labels, logits)) == pytest.approx(nats, abs=1e-5)
    metric = Perplexity()
    metric.update_state(labels, logits)
    assert float(metric.result()) == pytest.approx(math.exp(nats), rel=1e-5)
    metric.update_state(np.full((2, 3), -1), logits)
    assert float(metric.result()) == pytest.approx(math.exp(nats), rel=1e-5)


class TestFigures:
    def test_words(self):
        counter = metrics.Counter("words", WORDS)
        ids = np.array([2, 3, 4, 5, 1, 1, 2])  # "the dog runs .", an empty line, "the"
        counter.add(np.concatenate([[1], ids[:-1]]), ids, 14.0)
        figures = counter.totals.figures()
        assert figures["examples"] == 7
        assert figures["nats_per_token"] == 2
        assert figures["word_perplexity"] == figures["perplexity"] == pytest.approx(math.e**2)
        characters = len("the dog runs .\n\nthe ")
        assert figures["bits_per_character"] == pytest.approx(14 / characters / math.log(2))

    def test_unknown_words_have_no_length(self):
        counter = metrics.Counter("words", WORDS)
        counter.add(np.array([1]), np.array([0]), 1.0)
        assert "bits_per_character" not in counter.totals.figures()

    def test_characters_have_no_words(self):
        counter = metrics.Counter("characters", VOCABULARY)
        counter.add(np.array([1, 2]), np.array([2, 1]), 2.0)
        figures = counter.totals.figures()
        assert "word_perplexity" not in figures
        assert figures["bits_per_character"] == pytest.approx(1 / math.log(2))


def probabilities(trained: Trained, prompt: str, texts: list[str]) -> np.ndarray:
    """log P of equally long texts after a prompt, without `<unk>`, which is never generated."""
    ids = units_of(trained)(tf.constant([prompt + text for text in texts])).to_tensor().numpy()
    steps = network.Steps(trained.model, trained.config.tie_weights)
    tokens = np.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=modeling.END)
    logits, _ = logits_of(steps, tf.constant(tokens), tf.ones(tokens.shape, bool))
    logits = logits.numpy()
    logits[..., modeling.UNKNOWN] = -1e9
    log_probs = tf.nn.log_softmax(logits).numpy()
    found = np.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]
    return found[:, len(prompt) :].sum(axis=1)


class TestContinuations:
    def test_any_prompt_has_one(self, trained):
        results = app.predict(with_options(trained, max_length=12), TEXTS)
        assert [result["prompt"] for result in results] == TEXTS
        assert all(len(result["continuation"]) == 12 for result in results)
        assert not any("<" in result["continuation"] for result in results)

    def test_greedy_takes_the_most_probable_token(self, trained):
        [result] = app.predict(with_options(trained, temperature=0.0), ["bad"])
        text = result["continuation"]
        for k in range(len(text)):
            nexts = list("abcdefg \n")
            found = probabilities(trained, "bad" + text[:k], nexts)
            assert nexts[int(found.argmax())] == text[k]

    def test_beam_search_finds_the_best_of_all_texts(self, trained):
        options = {"max_length": 3, "beam_width": 90}  # as many as there are prefixes of two
        [found] = app.predict(with_options(trained, **options), ["f"])
        texts = ["".join(each) for each in itertools.product("abcdefg \n", repeat=3)]
        sums = probabilities(trained, "f", texts)
        assert found["continuation"] == texts[int(sums.argmax())]

    def test_samples_depend_on_the_seed_alone(self, trained):
        first, again, other = (
            app.predict(with_options(trained, sample_seed=seed, max_length=40), ["bad"])
            for seed in (1, 1, 2)
        )
        assert first == again != other

    @pytest.mark.exhaustive
    def test_one_of_the_first_token_is_greedy(self, trained):
        greedy = app.predict(with_options(trained, temperature=0.0), ["", "feed"])
        assert app.predict(with_options(trained, top_k=1), ["", "feed"]) == greedy
        assert app.predict(with_options(trained, top_p=1e-6), ["", "feed"]) == greedy
        assert app.predict(with_options(trained, temperature=1e-4), ["", "feed"]) == greedy

    @pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.6}], ids=["top_k", "top_p"])
    @pytest.mark.exhaustive
    def test_only_the_most_probable_tokens_are_sampled(self, trained, options):
        [result] = app.predict(with_options(trained, **options, max_length=20), ["bad"])
        text, ranks = result["continuation"], []
        for k, token in enumerate(text):
            found = probabilities(trained, "bad" + text[:k], list("abcdefg \n"))
            order = np.argsort(-found)
            ranks.append(int(np.flatnonzero(order == "abcdefg \n".index(token))[0]))
            assert np.exp(found[order[: ranks[-1]]]).sum() < options.get("top_p", 1)
        assert 0 < max(ranks) < options.get("top_k", 9)

    def test_stream_writes_what_predict_returns(self, trained):
        [result] = app.predict(trained, ["dad"])
        pieces = list(app.stream(trained, "dad"))
        assert len(pieces) == 13
        assert "".join(pieces) == "dad" + result["continuation"]

    def test_words_are_joined_by_spaces(self):
        [result] = app.predict(make(WORDS, units_of_text="words"), ["the dog"])
        assert set(result["continuation"].split()) <= set(WORDS)
        assert result["continuation"][0] in " \n"
        assert len(re.findall(r"\S+|\n", result["continuation"])) == 12


class TestScore:
    @pytest.mark.exhaustive
    def test_log_probabilities_are_those_of_the_whole_text(self, trained):
        results = app.predict(with_options(trained, score=True), TEXTS)
        for text, result in zip(TEXTS, results, strict=True):
            ids = units_of(trained)(tf.constant([text])).flat_values.numpy()
            expected = -whole_losses(trained, ids) if len(ids) else []
            np.testing.assert_allclose(result["log_probabilities"], expected, atol=2e-5)
            assert len(result["tokens"]) == len(ids)
        assert results[2]["tokens"] == ["a", "b", "c"]
        assert results[3]["tokens"][1] == "<unk>"

    def test_it_is_shown_in_color(self, trained):
        [result] = app.predict(with_options(trained, score=True), ["bad\nab"])
        shown = app.show(result)
        assert shown.plain.endswith("per token\nbad\u23ce\nab")
        bits = -sum(result["log_probabilities"]) / math.log(2)
        assert shown.plain.startswith(f"{bits:.1f} bits")
        assert len({str(span.style) for span in shown.spans}) > 1

    def test_words_and_subwords_are_spaced(self):
        assert display.spaced(["the", "dog", "<eos>", "a"]) == ["the", " dog", "\u23ce\n", "a"]
        assert display.spaced(["\u2581the", "s", "<eos>"]) == [" the", "s", "\u23ce\n"]
        assert display.spaced(["a", " ", "<unk>"]) == ["a", " ", "<unk>"]


@pytest.fixture(scope="module")
def service(trained) -> Service:
    return app.serve(trained)


@pytest.fixture(scope="module")
def functions(service) -> dict:
    return service.functions


class TestServing:
    def call(self, functions, prompts, **options):
        arguments = {"max_length": 12, "temperature": 0.0, "seed": 0} | options
        arguments = {k: np.broadcast_to(v, len(prompts)) for k, v in arguments.items()}
        arguments = {
            name: tf.constant(value, tf.float32 if name == "temperature" else tf.int32)
            for name, value in arguments.items()
        }
        found = functions["serving_default"](prompt=tf.constant(prompts), **arguments)[
            "text"
        ].numpy()
        return [text.decode() for text in found]

    def test_greedy_is_that_of_predict(self, trained, functions):
        expected = app.predict(with_options(trained, temperature=0.0), TEXTS)
        together = self.call(functions, TEXTS)
        assert together == [each["prompt"] + each["continuation"] for each in expected]
        assert self.call(functions, TEXTS[4:5], max_length=3) == [together[4][: len(TEXTS[4]) + 3]]

    def test_seed_and_temperature(self, functions):
        texts = {
            t: self.call(functions, ["bad"], temperature=t, seed=3)[0] for t in (0.0, 1e-4, 1.0)
        }
        assert texts[0.0] == texts[1e-4] != texts[1.0]
        assert self.call(functions, ["bad"], temperature=1.0, seed=3) == [texts[1.0]]
        assert self.call(functions, ["bad"], temperature=1.0, seed=4) != [texts[1.0]]

    def test_a_prompt_that_is_not_utf_8_is_answered_in_utf_8(self, functions):
        [found] = self.call(functions, [b"ba\xffd\0\xe2\x80"])
        assert found.startswith("ba\ufffdd\0\ufffd")

    @pytest.mark.exhaustive
    def test_a_long_text_is_scored_in_blocks(self, trained):
        generator, text = Generator(trained, units_of(trained)), "bad dad " * 80
        ids = generator.units(tf.constant([text]))[0].numpy()
        [found] = generator.score(tf.constant([text]))[1].to_list()
        np.testing.assert_allclose(found, -whole_losses(trained, ids), atol=1e-5)
        names, found = generator.score(tf.constant([text, "a"]), max_tokens=9)
        assert names.row_lengths().numpy().tolist() == [9, 1]

    def test_the_last_tokens_of_a_long_prompt_are_read(self, trained):
        prompts = tf.constant(["a" + "b" * MAX_TOKENS])
        ids = Generator(trained, units_of(trained)).prompt_ids(prompts).numpy()
        assert ids.shape == (1, 1 + MAX_TOKENS)
        assert set(ids[0, 1:]) == {VOCABULARY.index("b")}

    @pytest.mark.parametrize("temperature", first_of([1.0, 0.5, 1e38]))
    def test_samples_have_the_distribution(self, temperature):
        probabilities = np.array([0.0, 0.5, 0.3, 0.2, 1e-30])
        row = [-1e9, *np.log(probabilities[1:])]
        logits = tf.constant(np.tile(row, (2000, 1)), tf.float32)
        sample = SampleByInversion(tf.fill([2000], temperature), tf.range(2000), 2)
        found = [tf.argmax(sample(logits, None, tf.constant(step)), axis=-1) for step in (0, 1)]
        expected = probabilities ** (1 / temperature)
        for tokens in found:
            counts = np.bincount(tokens, minlength=5)
            np.testing.assert_allclose(counts / 2000, expected / expected.sum(), atol=0.04)
        assert 0 < np.mean(found[0] == found[1]) < 1

    def test_a_row_does_not_depend_on_the_others(self, functions):
        options = {"max_length": [12, 3, 12], "temperature": [1.0, 1.0, 0.0], "seed": [3, 4, 5]}
        together = self.call(functions, ["bad", "a", "dad"], **options)
        for k, prompt in enumerate(["bad", "a", "dad"]):
            own = {name: values[k] for name, values in options.items()}
            assert self.call(functions, [prompt], **own) == [together[k]]

    def test_only_the_end_is_possible_after_the_length(self):
        stop, log_probs = StopAfter(5, stop=3), tf.constant([[-1.0, -2.0, -3.0, -1e9]])
        np.testing.assert_array_equal(stop(log_probs, None, tf.constant(4)), log_probs)
        last = stop(log_probs, None, tf.constant(5)).numpy()
        assert last.tolist() == [[-np.inf, -np.inf, -np.inf, 0.0]]
        both = StopAfter(tf.constant([5, 6]), stop=3)(tf.repeat(log_probs, 2, 0), None, 5).numpy()
        assert both.tolist() == [last.tolist()[0], log_probs.numpy().tolist()[0]]

    @pytest.mark.parametrize("where", ["functions", "litert"])
    def test_a_step_has_no_loop(self, service, where):
        functions = getattr(service, where)
        graph = functions["step"].get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        assert not [node.op for node in nodes if "While" in node.op]
        fixed = {1} if where == "litert" else {None}
        assert {spec.shape[0] for spec in functions["step"].input_signature} == fixed

    def test_ids_are_generated_as_texts_are(self, trained, service):
        """Whatever the padding."""
        expected = app.predict(with_options(trained, temperature=0.0), TEXTS)
        generator = Generator(trained, units_of(trained))
        prompts = generator.prompt_ids(tf.constant(TEXTS)).numpy()
        assert (prompts[:, 0] == modeling.END).all()
        prompts = np.pad(prompts, ((0, 0), (0, 3)), constant_values=-7)
        found = service.litert["generate"](tf.constant(prompts), tf.constant(12))["tokens"].numpy()
        assert found.shape == (len(TEXTS), 12)
        for text, ids, result in zip(TEXTS, found, expected, strict=True):
            assert generator.text(text, ids) == text + result["continuation"]
        one = service.litert["generate"](tf.constant(prompts[4:5]), tf.constant(3))["tokens"]
        np.testing.assert_array_equal(one, found[4:5, :3])

    def test_ids_that_are_not_in_the_vocabulary_are_the_unknown_token(self, service):
        generate, step = service.litert["generate"], service.litert["step"]
        found = [generate(tf.constant([[1, k, 3]]), tf.constant(5))["tokens"] for k in (0, 999)]
        np.testing.assert_array_equal(*found)
        states = {spec.name: tf.ones(spec.shape) for spec in step.input_signature[1:]}
        first, *others = [step(token=tf.constant([k]), **states)["logits"] for k in (0, -1, 999)]
        for logits in others:
            np.testing.assert_array_equal(logits, first)
