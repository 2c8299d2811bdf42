"""Which tests of the layers run on which backend.

TensorFlow runs all of them. The other backends run the bench (see `test_bench.py`), and those below
whose outcome can depend on the backend: loops and gradients of its own, random numbers, compiled
searches, training. The rest tests Python code, or identities between layers for which the bench
compares each side to its oracle on each backend.
"""

import pytest

from tests.conftest import backend

# By file, the beginnings of test ids; an empty list means all tests of the file.
SELECTED = {
    "jax": {
        "test_bench.py": [],
        "test_broken.py": [],
        "test_recurrence.py": [],
        "test_zoneout.py": [
            "test_outputs_and_gradients_are_those_of_the_kept_units",
            "test_two_batches_differ",
        ],
        "test_fused.py": [],
        "test_linear_recurrence.py": [],
        "test_monotonic_attention.py": ["test_the_weights_of_the_query_before", "test_a_decoder"],
        "test_recurrent_limits.py": [],
        "test_keras_rnn.py": [],
        "test_keras_bidirectional.py": [],
        "test_robustness.py": [],
        "test_keras_private.py": [],
        "test_ctc_language_model.py": ["test_scores_are_those_of_the_definition"],
        "test_crf.py": [
            "test_tags_marginals_and_likelihood_by_enumeration",
            "test_large_scores_in_float32",
            "test_empty_inputs",
        ],
        "test_onednn.py": ["test_the_variable_is_not_set_on_another_backend"],
        "test_adaptive_softmax.py": [],
        "test_crf_models.py": ["test_a_tagger_trains_with_the_loss_and_is_saved"],
        "test_ctc.py": [
            "test_loss_by_enumeration",
            "test_gradient_by_differences_and_zero_if_infeasible",
            "test_nan_after_the_last_frame_has_no_effect",
        ],
        "test_ctc_decoding.py": [
            "test_greedy_is_the_collapsed_best_path",
            "test_a_wide_beam_equals_the_enumeration",
        ],
        "test_decoding.py": [
            "test_dropout_between_cells_is_the_same_at_each_step",
            "test_scheduled_sampling_reads_predicted_tokens",
        ],
        "test_search.py": [
            "test_samples_follow_the_probabilities",
            "test_a_seed_repeats_the_samples_and_a_generator_does_not",
            "test_searches_compile_in_jax",
        ],
        "test_search_options.py": [
            "test_all_options_compile_in_jax",
            "test_nan_ends",
            "test_a_prefix_is_forced",
            "test_an_empty_batch",
        ],
        "test_search_states.py": ["test_states_keep"],
        "test_beam_search.py": ["test_equal_scores", "test_top_k_orders", "test_unfinished"],
        "test_recurrent_identities.py": [
            "test_weights_and_values_equal_those_of_keras",
            "test_runs_in_the_wrappers_of_keras[LSTM]",
        ],
    },
    "torch": {
        "test_bench.py": [],
        "test_broken.py": [],
        "test_zoneout.py": [],
        "test_recurrent_variants.py": [],
        "test_monotonic_attention.py": [],
        "test_fused.py": [],
        "test_linear_recurrence.py": [],
        "test_keras_private.py": [],
        "test_recurrent_limits.py": [],
        "test_keras_rnn.py": [],
        "test_keras_bidirectional.py": [],
        "test_robustness.py": [],
        "test_adaptive_softmax.py": [],
        "test_crf.py": [],
        "test_crf_models.py": [],
        "test_ctc.py": [],
        "test_ctc_decoding.py": [],
        "test_decoding.py": ["test_dropout_between_cells_is_the_same_at_each_step"],
        "test_search.py": ["test_greedy_equals_a_plain_loop_and_a_beam_of_one"],
        "test_search_options.py": [
            "test_a_prefix_is_forced",
            "test_nan_ends",
            "test_an_empty_batch",
        ],
        "test_search_states.py": ["test_states_are"],
        "test_beam_search.py": [],
        "test_minimum_bayes_risk.py": [],
        "test_memory_masks.py": [],
        "test_pooling.py": [],
        "test_embedding.py": [],
    },
}

# Of these, what takes long, by the beginnings of names or by file: `make test` leaves it to
# `make test-all`.
EXHAUSTIVE = {
    "jax": (
        "test_empty_inputs",
        "test_the_variable_is_not_set_on_another_backend",
        "test_a_prefix_is_forced",
        "test_an_empty_batch",
        "test_states_keep",
        "test_scheduled_sampling_reads",
        "test_a_broken_layer",
        "test_outputs_and_gradients_are_those_of_the_kept_units",
        "test_two_batches_differ_and_a_seed_repeats_them",
        "test_the_weights_of_the_query_before",
        "test_a_decoder_reads_the_memory_in_order",
        "test_nan_ends",
        "test_stacked_cells",
        "test_time_distributed",
        "test_arguments_about_keras_loops",
        "test_declared_dtypes",
        "test_a_stateful_layer_trains",
        "test_a_form_is_the_definition",
        "test_a_fused_kernel_equals_the_loop",
        "test_equals_that_of_pytorch",
        "test_embeddings_are_rows_of_the_same_weights",
        "test_a_model_with_targets_and_tied_embeddings_is_saved",
        "test_shapes_of_any_rank",
        "test_a_batch_may_lack_any_cluster",
        "test_values_and_gradients_of_targets",
        "test_sums_of_a_large_vocabulary",
        "test_tags_marginals_and_likelihood_by_enumeration",
        "test_a_tagger_trains",
        "test_states_of_a_fused_kernel_are_float32",
        "test_nan_after_the_last_frame",
        "test_unfinished_sequences",
        "test_loss_by_enumeration",
        "test_a_wide_beam_equals_the_enumeration",
        "test_samples_follow_the_probabilities",
        "test_layer[modes_agree-AttentionDecoder",
        "test_layer[gradients-AttentionDecoder",
        "test_keras_rnn.py",
        "test_keras_bidirectional.py",
        "test_keras_private.py",
    ),
    "torch": (
        "test_memory_masks.py",
        "test_minimum_bayes_risk.py",
        "test_a_tagger_trains",
        "test_a_broken_layer",
        "test_a_model_with_targets_and_tied_embeddings_is_saved",
    ),
}


def pytest_collection_modifyitems(config, items):
    """Deselects what does not run on this backend, and rejects names that no test has."""
    selected = SELECTED.get(backend())
    if selected is None:
        return
    keep, drop, found = [], [], set()
    for item in items:
        names = selected.get(item.path.name) if item.path.parent.name == "layers" else []
        matches = [name for name in names or [] if item.name.startswith(name)]
        found |= {(item.path.name, name) for name in matches}
        (drop if names is None or (names and not matches) else keep).append(item)
    for item in keep:
        if item.name.startswith(names := EXHAUSTIVE.get(backend(), ())) or item.path.name in names:
            item.add_marker(pytest.mark.exhaustive)
    config.hook.pytest_deselected(items=drop)
    items[:] = keep
    if not config.option.keyword and not any("::" in x for x in config.args):
        collected = {item.path.name for item in keep + drop}
        unknown = {f"{file}::{name}" for file in collected for name in selected.get(file, [])} - {
            f"{file}::{name}" for file, name in found
        }
        if unknown:
            raise pytest.UsageError(f"{__file__} selects unknown tests: {sorted(unknown)}")
