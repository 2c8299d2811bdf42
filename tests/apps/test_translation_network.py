"""The networks of the translation app, ensembles of them, and their searches."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sentencepiece import sentencepiece_model_pb2

from tests.apps.translation_cases import SOURCE, TARGET, make
from tests.parameters import first_of
from unroll import layers
from unroll.apps.core.errors import UsageError
from unroll.apps.shared.token_losses import MeanLoss, Perplexity
from unroll.apps.translation import app, decoding, network, scoring
from unroll.layers.decoding import SearchResult
from unroll.pipelines.subwords import train_subwords
from unroll.pipelines.translation import END, PAD, SEPARATOR, START, UNKNOWN

VARIANTS = {
    "after": {"attention": "after"},
    "before": {
        **{"attention": "before", "cell": "ContextLSTM", "encoder_cell": "LSTM", "depth": 2},
        **{"encoder_depth": 2, "tied": "none", "coverage": 0.5},
    },
    "three": {
        **{"tied": "three", "shared_vocabulary": True, "units_of_text": "characters"},
        **{"attention": "after", "score": "concat", "label_smoothing": 0.1, "cell": "LSTM"},
    },
}
IDS = np.array([[5, 7, 8, END, PAD], [6, UNKNOWN, 9, 7, END]], "int32")
GIVEN = np.array([[START, 5, 7, PAD], [START, 6, 8, 9]], "int32")


@pytest.fixture(scope="module")
def models():
    made = {}
    return lambda variant: (
        made.setdefault(variant, None)
        or made.update({variant: make(**VARIANTS[variant])})
        or made[variant]
    )


@pytest.fixture(params=first_of(VARIANTS, "before"))
def trained(request, models):
    return models(request.param)


def limits(trained, **options):
    return dataclasses.replace(trained, config=dataclasses.replace(trained.config, **options))


def test_padding_has_no_effect(trained):
    together = trained.model({"source": IDS, "target": GIVEN}).numpy()
    alone = trained.model({"source": IDS[:1, :4], "target": GIVEN[:1, :3]}).numpy()
    np.testing.assert_allclose(together[:1, :3], alone, atol=1e-5)


def test_every_weight_has_a_gradient(trained):
    labels = np.array([[5, 7, END, PAD], [6, 8, 9, END]])
    with tf.GradientTape() as tape:
        logits = trained.model({"source": IDS, "target": GIVEN}, training=True)
        loss = trained.model.compute_loss(y=labels, y_pred=logits)
    weights = trained.model.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    none = [
        weight.path
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is None or not np.abs(tf.convert_to_tensor(gradient)).max() > 0
    ]
    assert none == []


def test_greedy_search_agrees_with_teacher_forcing(trained):
    step_function, states, mask = decoding.decoding(trained)(IDS)
    assert mask.numpy().tolist() == (IDS != PAD).tolist()
    found = decoding.greedy(step_function, states, trained.config)
    target = np.concatenate([np.full((2, 1), START), found.tokens.numpy()], axis=1)
    logits = trained.model({"source": IDS, "target": target.astype("int32")}).numpy()
    logits[..., [PAD, START, SEPARATOR, UNKNOWN]] = -np.inf
    for row, length in enumerate(found.lengths.numpy()):
        chosen = logits[row].argmax(-1)
        np.testing.assert_array_equal(chosen[:length], found.tokens[row, :length])
        assert length == trained.config.max_length or chosen[length] == END


def test_tied_embeddings():
    def matrices(tied: str, shared: bool) -> int:
        kind = {"shared_vocabulary": shared, "units_of_text": "characters"}
        trained = make(tied=tied, **kind)
        size = {len(each) for each in trained.assets.values() if isinstance(each, list)}
        return sum(
            bool(size & set(weight.shape)) and len(weight.shape) == 2
            for weight in trained.model.weights
        )

    assert [matrices(tied, True) for tied in ("none", "two", "three")] == [3, 2, 1]
    decoder = make(tied="two", units=7, embedding_dim=4).model.get_layer("decoder")
    assert decoder.tie_weights


def test_options_reach_the_layers():
    model = make(
        scheduled_sampling=0.25, embedding_dropout=0.1, dropout=0.2, average=0.9, weight_decay=0.1
    ).model
    decoder, encoder = model.get_layer("decoder"), model.get_layer("encoder")
    assert float(decoder.sampling_probability) == 0.25
    assert (decoder.dropout, decoder.output_dropout) == (0.1, 0.2)
    rates = [each.rate for each in encoder.layers if isinstance(each, keras.layers.Dropout)]
    assert rates == [0.1, 0.2]
    assert encoder.get_layer("stack").dropout == 0.2
    assert (model.optimizer.ema_momentum, model.optimizer.weight_decay) == (0.9, 0.1)
    assert isinstance(
        make(attention="before").model.get_layer("decoder").attention, layers.BahdanauAttention
    )


def test_the_loss_by_hand():
    logits = tf.random.normal([2, 3, 5], seed=1)
    labels = np.array([[3, 4, 2], [1, 0, 0]])
    log_probs = tf.nn.log_softmax(logits).numpy()
    counted = [(0, 0, 3), (0, 1, 4), (0, 2, 2), (1, 0, 1)]
    nats = -np.mean([log_probs[index] for index in counted])
    uniform = -np.mean([log_probs[index[:2]].mean() for index in counted])
    assert float(MeanLoss(first=1)(labels, logits)) == pytest.approx(nats, abs=1e-5)
    smooth = MeanLoss(first=1, smoothing=0.1)(labels, logits)
    assert float(smooth) == pytest.approx(0.9 * nats + 0.1 * uniform, abs=1e-5)
    metric = Perplexity(first=1)
    metric.update_state(labels, logits)
    assert float(metric.result()) == pytest.approx(math.exp(nats), rel=1e-5)
    metric.update_state(labels[:, :1], logits[:, :1])  # a batch of another length
    nats = -np.mean([log_probs[index] for index in [*counted, (0, 0, 3), (1, 0, 1)]])
    assert float(metric.result()) == pytest.approx(math.exp(nats), rel=1e-5)


class TestEnsemble:
    def members(self):
        return [make(seed=1), make(seed=2, attention="before", units=4)]

    def test_it_is_the_mean_of_the_probabilities(self):
        members = self.members()
        both = app.ensemble(members)
        inputs = {"source": IDS, "target": GIVEN}
        expected = np.mean([tf.nn.softmax(each.model(inputs)) for each in members], axis=0)
        np.testing.assert_allclose(tf.exp(both.model(inputs)), expected, atol=1e-6)
        step_function, states, _ = decoding.decoding(both)(IDS)
        first = np.array([START, START])
        logits, states, weights = step_function(first, states)
        allowed = np.ones(len(TARGET))
        allowed[[PAD, START, SEPARATOR, UNKNOWN]] = 0
        found = tf.nn.softmax(logits).numpy()
        expected = expected[:, 0] * allowed
        np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), atol=1e-6)
        np.testing.assert_allclose(tf.reduce_sum(weights, -1), 1, atol=1e-6)

    def test_it_finds_what_one_of_equal_members_finds(self):
        member = limits(make(), max_length=3, beam_width=2)
        alone = decoding.Translator(member).search(tf.constant(IDS))
        several = decoding.Translator(app.ensemble([member, member])).search(tf.constant(IDS))
        assert (alone.tokens == several.tokens).numpy().all()
        np.testing.assert_allclose(alone.scores, several.scores, atol=1e-4)
        np.testing.assert_allclose(alone.alignments, several.alignments, atol=1e-5)

    def test_runs_of_older_versions_have_a_file_name_in_their_subwords(self):
        model, assets = train_subwords(["a small dog"] * 20, 12, {"unk": "<unk>"})[1], []
        for name in ("one", "another"):
            fields = sentencepiece_model_pb2.ModelProto.FromString(model)
            fields.normalizer_spec.normalization_rule_tsv = name
            assets.append({**make().assets, "subwords": fields.SerializeToString()})
        assert assets[0] != assets[1]
        both = app.ensemble([dataclasses.replace(make(), assets=each) for each in assets])
        assert len(both.model.members) == 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"assets": {"source_vocabulary": SOURCE[::-1]}}, "number 2 has others than the first"),
            ({"config": app.Config(units_of_text="characters")}, "same units_of_text.*characters"),
            ({"config": app.Config(history=4)}, "same history: that of the first is 1.*2 is 4"),
        ],
    )
    def test_members_that_do_not_fit_are_named(self, change, message):
        member = make()
        with pytest.raises(UsageError, match=message):
            app.ensemble([member, dataclasses.replace(member, **change)])


def test_unknown_tokens_are_replaced_by_aligned_source_tokens():
    trained = make(replace_unknown=True)
    translator = decoding.Translator(trained)
    alignments = np.zeros((2, 1, 4, 4), "float32")
    # The third unknown token is aligned with the end of the source: the next best token counts.
    alignments[:, 0, range(4), [1, 0, 2, 3]] = 0.6
    alignments[:, 0, 3, 1] = 0.4
    found = SearchResult(
        tokens=tf.constant([[[UNKNOWN, 7, UNKNOWN, UNKNOWN]]] * 2),
        lengths=tf.constant([[4]] * 2),
        log_probabilities=None,
        scores=None,
        alignments=tf.constant(alignments),
    )
    source = translator.source_pieces(tf.constant(["a Zebra!", ""]))
    assert source.numpy()[0].tolist() == [b"a", b"Zebra", "\uffed!".encode(), b"</s>"]
    texts = translator.texts(found, source).numpy().tolist()
    assert texts == [[b"Zebra Hund! Zebra"], [b"<unk> Hund <unk> <unk>"]]
    step_function, states, _ = translator.begin(IDS)
    assert step_function(np.array([START, START]), states)[0][0, UNKNOWN] > -1e6


def searched(trained, with_weights=True, **options) -> SearchResult:
    return decoding.Translator(limits(trained, **options)).search(tf.constant(IDS), with_weights)


def test_samples():
    trained = limits(make(), max_length=4, sample=True)
    several = {"num_return_sequences": 6, "temperature": 1.5}
    samples = searched(trained, **several)
    assert samples.tokens.shape == (2, 6, 4)
    without = searched(trained, with_weights=False, **several)
    assert (samples.tokens == without.tokens).numpy().all()
    assert without.alignments is None
    other = searched(trained, **several, sample_seed=1)
    assert not (samples.tokens == other.tokens).numpy().all()
    likeliest, greedy = searched(trained, top_p=1e-6), searched(trained, sample=False, beam_width=1)
    assert (likeliest.tokens == greedy.tokens).numpy().all()
    coldest = searched(trained, temperature=0.0, num_return_sequences=2)
    assert (coldest.tokens == greedy.tokens).numpy().all()


def test_the_scores_of_a_beam():
    trained = limits(make(), max_length=4, beam_width=3, num_return_sequences=3)
    found = searched(trained, length_penalty=1.0)
    divisor = (5 + np.minimum(found.lengths.numpy() + 1, 4)) / 6
    np.testing.assert_allclose(found.scores * divisor, found.log_probabilities, rtol=1e-5)
    risk = searched(trained, mbr_samples=5)
    assert ((risk.scores >= 0) & (risk.scores <= 1)).numpy().all()
    assert risk.alignments.shape[:3] == (2, 3, 4)


@pytest.mark.exhaustive
def test_penalties_of_the_search():
    trained = limits(make(), max_length=5, beam_width=1)
    once = searched(trained, no_repeat_ngram_size=1).tokens.numpy()
    for row in once[:, 0]:
        assert len(set(row[row > 0])) == (row > 0).sum()
    plain, varied = searched(trained), searched(trained, repetition_penalty=50.0)
    assert not (plain.tokens == varied.tokens).numpy().all()
    penalized = searched(trained, coverage_penalty=1.0)
    penalties = (penalized.log_probabilities - penalized.scores).numpy()
    assert penalties.min() >= 0  # zero where each token gets a weight of one or more
    assert penalties.max() > 0.01


@pytest.mark.exhaustive
def test_candidates_are_scored_by_what_a_source_tells_of_their_tokens():
    trained = make(dialogs=True, history=2)
    score = scoring.scorer(trained)
    sources, histories = ["a dog", "cat"], [["small cat."], []]
    candidates = [["ein Hund", "Katze."], ["eine Katze sieht", "Hund"]]
    found = score(sources, histories, candidates)
    assert found.shape == (2, 10)
    assert (found[:, 2:] == -np.inf).all()
    translator = decoding.Translator(trained)
    ids = translator.source_ids(tf.constant(["a dog"]), tf.ragged.constant([["small cat."]]))
    assert ids.numpy().tolist() == [[6, 10, 9, SEPARATOR, 5, 7, END]]
    expected = 0.0
    for sign, given in ((1, ids), (-1, tf.constant([[END]]))):
        log_probs = tf.nn.log_softmax(
            trained.model({"source": given, "target": tf.constant([[1, 5, 7]])})
        )
        expected += sign * np.mean([log_probs[0, t, token] for t, token in enumerate([5, 7, END])])
    assert found[0, 0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"encoder_cell": "Foo"}, "encoder_cell must be one of .*GRU"),
        ({"num_return_sequences": 6}, r"in \[1, beam_width\], got 6 with beam_width=5"),
        ({"tied": "three"}, "tied=three needs shared_vocabulary"),
        ({"sample": True, "mbr_samples": 3}, "exclude each other"),
        ({"replace_unknown": True, "units_of_text": "subwords"}, "needs units_of_text=words"),
        ({"source": "de", "target": "de"}, "must differ, got de for both"),
        ({"temperature": -1.0}, r"temperature must be in \[0, 100\)"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        ({"coverage": -1.0}, "coverage must be 0 or more"),
        ({"history": 0}, "history must be at least 1"),
    ],
)
def test_invalid_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_network_sizes():
    model = network.build(app.Config(units=6, embedding_dim=5), len(SOURCE), len(TARGET))
    assert model({"source": IDS, "target": GIVEN}).shape == (2, 4, len(TARGET))
