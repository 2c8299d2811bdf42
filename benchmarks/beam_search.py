"""The speed of the beam search, compared with a Python loop over the decoder's step.

A beam of 5, 32 sequences, 30 steps and 10,000 tokens; a decoder with additive attention over 30
positions. Three implementations, interleaved in one process, medians:

- `layers.beam_search` in a compiled graph (`tf.function`), and under XLA;
- the same function in eager mode;
- a Python loop: one hypothesis at a time, its step in a compiled graph, lists and a sort.

It also measures the time and memory of a training step as a function of the target length.

    python benchmarks/beam_search.py        # about 5 minutes

The tables are printed, and written to `benchmarks/results/beam_search.md`.
"""

import os
import statistics
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import numpy as np
import tensorflow as tf
from measuring import in_a_fresh_process, peak_of, table

from unroll import layers

RESULTS = Path(__file__).parent / "results"
BATCH, POSITIONS, STEPS, TOKENS, WIDTH, UNITS = 32, 30, 30, 10_000, 5, 256
START, END = 1, 2
LENGTHS = (25, 50, 100, 200)


def make_decoder() -> layers.AttentionDecoder:
    keras.utils.set_random_seed(1)
    decoder = layers.AttentionDecoder(
        TOKENS,
        UNITS,
        [layers.ContextLSTMCell(UNITS, context_size=UNITS)],
        layers.BahdanauAttention(UNITS),
    )
    decoder.build((None, None), (None, None, UNITS))
    # With random weights the end is as likely as any other token, so that most sequences take all
    # steps. Large output weights avoid ties up to rounding.
    rng = np.random.default_rng(1)
    decoder.set_weights(
        [
            rng.normal(size=w.shape, scale=1 if w is decoder.output_kernel else 0.05)
            for w in decoder.weights
        ]
    )
    return decoder


def python_loop(step, states, memory_row) -> list:
    """The beam search of one sequence: a list of `(tokens, log probability)`."""
    beam, finished = [([START], 0.0, states)], []
    for _ in range(STEPS):
        extended = []
        for words, total, own in beam:
            log_probs, new = step(tf.constant([words[-1]]), own, memory_row)
            log_probs = log_probs.numpy()[0]
            for word in np.argsort(-log_probs)[: 2 * WIDTH]:
                extended.append(([*words, int(word)], total + float(log_probs[word]), new))
        extended.sort(key=lambda hypothesis: -hypothesis[1])
        for words, total, _ in extended[:WIDTH]:
            if words[-1] == END and len(finished) < WIDTH:
                finished.append((words[1:-1], total))
        beam = [h for h in extended[: 2 * WIDTH] if h[0][-1] != END][:WIDTH]
        if len(finished) == WIDTH:
            break
    finished.sort(key=lambda hypothesis: -hypothesis[1])
    return (finished + [(words[1:], total) for words, total, _ in beam])[:WIDTH]


def search_table(decoder) -> list[str]:
    memory = tf.constant(
        np.random.default_rng(2).normal(size=(BATCH, POSITIONS, UNITS)).astype("float32")
    )

    def search(memory):
        found = layers.beam_search(
            decoder.step_function(memory),
            decoder.initial_states(memory),
            start=START,
            end=END,
            max_length=STEPS,
            beam_width=WIDTH,
        )
        return found.tokens, found.log_probabilities

    graph = tf.function(search, autograph=False)
    xla = tf.function(search, autograph=False, jit_compile=True)

    @tf.function(reduce_retracing=True, autograph=False)
    def step(tokens, states, memory):
        logits, states, _ = decoder.step(tokens, states, memory)
        return tf.nn.log_softmax(logits), states

    def loop(memory):
        tokens, log_probs = np.zeros((BATCH, 1, STEPS), int), np.zeros((BATCH, 1))
        for row in range(BATCH):
            one = memory[row : row + 1]
            words, log_probs[row, 0] = python_loop(step, decoder.initial_states(one), one)[0]
            tokens[row, 0, : len(words)] = words
        return tokens, log_probs

    implementations = {
        "`beam_search`, graph": (graph, 7),
        "`beam_search`, XLA": (xla, 7),
        "`beam_search`, eager": (search, 3),
        "Python loop": (loop, 1),
    }
    outputs, taken = {}, {}
    for name, (way, _) in implementations.items():
        outputs[name] = [np.asarray(x) for x in way(memory)]
        taken[name] = []
    for k in range(7):
        for name, (way, repeats) in implementations.items():
            if k < repeats:
                start = time.perf_counter()
                way(memory)
                taken[name].append(time.perf_counter() - start)
    reference = outputs["Python loop"]
    same = {
        name: float(np.mean([(a == b).all() for a, b in zip(found[0], reference[0], strict=True)]))
        for name, found in outputs.items()
    }
    whole = statistics.median(taken["Python loop"])
    rows = []
    for name, times in taken.items():
        seconds = statistics.median(times)
        rows.append([name, f"{seconds:.3f}", f"{whole / seconds:.1f}", f"{same[name]:.0%}"])
    return table(["implementation", "seconds", "speedup", "same sequences"], rows)


def training_step(decoder):
    memory = tf.random.stateless_normal((8, POSITIONS, UNITS), (1, 2))

    @tf.function(autograph=False)
    def train(tokens):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(decoder(tokens, memory, training=True)[0]))
        return tape.gradient(loss, [v.value for v in decoder.trainable_variables])

    def run(length):
        train(tf.ones((8, length), "int32"))
        tf.test.experimental.sync_devices()

    return run


def growth(length: int) -> tuple[float, float]:
    """Milliseconds and MiB of a training step of the decoder for a target length."""
    run = training_step(make_decoder())
    run(2)  # memory of the libraries
    memory = peak_of(lambda: run(length))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        run(length)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), memory


def growth_table() -> list[str]:
    rows = []
    for length in LENGTHS:
        taken, memory = in_a_fresh_process(growth, length)
        rows.append([length, f"{taken:.0f}", f"{taken / length:.2f}", f"{memory:.0f}"])
    return table(["target length", "ms", "ms per step", "peak MiB"], rows)


def main():
    decoder = make_decoder()
    lines = [
        f"## Beam search on {os.cpu_count()} CPU cores, tensorflow {tf.__version__}, keras "
        f"{keras.__version__}",
        "",
        f"Width {WIDTH}, {BATCH} sequences, {STEPS} steps, {TOKENS:,} tokens, a memory of "
        f"{POSITIONS} positions, {UNITS} units. Medians.",
        "",
        *search_table(decoder),
        "",
        f"A training step of the decoder with a batch of 8, including the {TOKENS:,} logits:",
        "",
        *growth_table(),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "beam_search.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
