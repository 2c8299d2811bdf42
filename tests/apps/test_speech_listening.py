"""Speech that is recognized while it is recorded: any pieces, at any rate, as one recording."""

import numpy as np
import pytest

from tests.apps.test_contract_models import small_config
from unroll.apps.core.protocol import Trained
from unroll.apps.speech_ctc import app, streaming
from unroll.pipelines import audio, sound


def pieces(samples: np.ndarray, longest: int, seed: int = 0):
    """Pieces of random lengths, some of them empty."""
    random, done = np.random.default_rng(seed), 0
    while done < len(samples):
        length = int(random.integers(0, longest))
        yield samples[done : done + length]
        done += length


@pytest.mark.parametrize(
    ("rate", "to_rate"), [(48_000, 8000), (44_100, 16_000), (11_025, 16_000), (8000, 8000)]
)
def test_pieces_are_resampled_as_a_whole(rate, to_rate):
    samples = np.random.default_rng(1).normal(size=3000).astype("float32")
    resample = streaming._Resampler(to_rate)
    found = np.concatenate([resample(each, rate) for each in pieces(samples, 500)])
    expected = audio.resample(samples, rate, to_rate).numpy()
    # Those at the end depend on samples that are still to come.
    missing = 0 if rate == to_rate else audio.reach(rate, to_rate) * to_rate / rate
    assert len(expected) - missing - 1 <= len(found) <= len(expected) - missing + 1
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)


@pytest.mark.exhaustive
def test_pieces_give_the_transcript_of_the_recording():
    config = small_config(app, bidirectional=False, normalization="running")
    assets = app.load(config, ()).assets
    trained = Trained(config, assets, app.build(config, assets))
    logits = trained.model.get_layer("logits")  # large weights give different labels
    logits.kernel.assign(20 * np.random.default_rng(0).normal(size=logits.kernel.shape))
    [recording, *_] = app.examples()
    samples, rate = sound.decode(recording)
    text = "".join(app.stream(trained, recording))
    assert len(text.split()) > 1
    hear = streaming.listen(trained)
    assert "".join(hear(each, rate) for each in pieces(samples, 700)) == text
    faster = audio.resample(samples, rate, 44_100).numpy()
    hear, again = streaming.listen(trained), streaming.listen(trained)
    assert "".join(hear(each, 44_100) for each in pieces(faster, 5000)) == again(faster, 44_100)
