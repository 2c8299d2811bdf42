"""The speed of the app `translation`, compared with the same model in PyTorch.

    python benchmarks/translation.py             # about ten minutes on two cores
    python benchmarks/translation.py --rounds=1

The model is that of the widely used tutorial of PyTorch, bentrevett/pytorch-seq2seq, "Neural
machine translation by jointly learning to align and translate", on the shapes of Multi30k: a
bidirectional GRU encoder and a GRU decoder with additive attention, embeddings of 256 and states of
512, batches of 128 pairs in training, Adam, gradients clipped at 1. Both have a layer of 256 before
the output, as the decoder of the app has. The code of PyTorch computes the attention keys once per
sentence and the output layer of all steps at once, which the tutorial does not; its beam search,
which the tutorial lacks, is the plain one.

Decoding writes 20 tokens for each sentence of 13, with beams of 1 (greedy), 5 and 10, one sentence
or 64 at a time. Each framework has a process of its own. The processes take turns, and the medians
over the rounds are printed, and written to `benchmarks/results/translation.md`.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measuring import seconds_in_turns, table

RESULTS = Path(__file__).parent / "results" / "translation.md"
SOURCE_SIZE, TARGET_SIZE = 7853, 5893  # of the tutorial's vocabularies
EMBEDDING, UNITS = 256, 512
BATCH, LENGTH = 128, 13  # pairs of a training batch, tokens of a sentence
BATCHES = 4  # in a round
WRITTEN = 20  # tokens of a translation
START, END = 1, 2
BEAMS, SENTENCES = (1, 5, 10), (1, 64)


def pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids of sources and of targets with a start and an end."""
    rng = np.random.default_rng(0)
    source = rng.integers(5, SOURCE_SIZE, (count, LENGTH)).astype("int32")
    target = rng.integers(5, TARGET_SIZE, (count, LENGTH + 2)).astype("int32")
    target[:, 0], target[:, -1] = START, END
    return source, target


class _Decoding:
    """A method for each beam and number of sentences."""

    def decode(self, beam: int, sentences: int) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str):
        if not name.startswith("decode_"):
            raise AttributeError(name)
        beam, sentences = map(int, name.split("_")[1:])
        return lambda: self.decode(beam, sentences)


class Unroll(_Decoding):
    """The app `translation`."""

    def __init__(self):
        from unroll.apps.core.quiet import import_tensorflow

        import_tensorflow()
        import tensorflow as tf

        from unroll import layers
        from unroll.apps.core.protocol import Trained
        from unroll.apps.translation import app, decoding
        from unroll.pipelines.batching import OPTIONS

        config = app.Config(
            attention="before", tied="none", embedding_dim=EMBEDDING, units=UNITS,
            embedding_dropout=0.5, dropout=0.5, average=0.0, batch_size=BATCH, learning_rate=1e-3,
        )  # fmt: skip
        assets = {
            "source_vocabulary": [f"w{k}" for k in range(SOURCE_SIZE)],
            "target_vocabulary": [f"w{k}" for k in range(TARGET_SIZE)],
            "task": {"dialogs": False},
        }
        self.model = app.build(config, assets)
        source, target = pairs(BATCH)
        features = {"source": source, "target": target[:, :-1]}
        dataset = tf.data.Dataset.from_tensors((features, target[:, 1:])).repeat()
        self.batches, self.tf = dataset.with_options(OPTIONS), tf
        begin = decoding.decoding(Trained(config, assets, self.model))
        limits = {"start": START, "end": END, "max_length": WRITTEN, "min_length": WRITTEN}

        def search(ids, beam):
            step_function, states, _ = begin(ids)
            if beam == 1:
                return layers.greedy(step_function, states, **limits).tokens
            found = layers.beam_search(step_function, states, beam_width=beam, **limits)
            return found.tokens

        spec = tf.TensorSpec([None, None], tf.int32)
        self.search = {
            beam: tf.function(search, autograph=False).get_concrete_function(spec, beam)
            for beam in BEAMS
        }

    def train(self) -> None:
        self.model.fit(self.batches, steps_per_epoch=BATCHES, shuffle=False, verbose=0)

    def decode(self, beam: int, sentences: int) -> None:
        found = self.search[beam](self.tf.constant(pairs(sentences)[0])).numpy()
        assert found.shape[-1] == WRITTEN


class PyTorch(_Decoding):
    """The model of the tutorial, with a readout of 256."""

    def __init__(self):
        import torch
        from torch import nn
        from torch.nn import functional

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.source = nn.Embedding(SOURCE_SIZE, EMBEDDING)
                self.target = nn.Embedding(TARGET_SIZE, EMBEDDING)
                self.drop = nn.Dropout(0.5)
                self.encoder = nn.GRU(EMBEDDING, UNITS, bidirectional=True, batch_first=True)
                self.state = nn.Linear(2 * UNITS, UNITS)
                self.query = nn.Linear(UNITS, UNITS, bias=False)
                self.key = nn.Linear(2 * UNITS, UNITS, bias=False)
                self.scale = nn.Linear(UNITS, 1, bias=False)
                self.cell = nn.GRUCell(EMBEDDING + 2 * UNITS, UNITS)
                self.readout = nn.Linear(3 * UNITS + EMBEDDING, EMBEDDING)
                self.output = nn.Linear(EMBEDDING, TARGET_SIZE)

            def encode(self, source) -> tuple:
                memory, _ = self.encoder(self.drop(self.source(source)))
                memory = self.drop(memory)
                return memory, self.key(memory), torch.tanh(self.state(memory.mean(1)))

            def step(self, x, h, memory, keys) -> tuple:
                scores = self.scale(torch.tanh(self.query(h)[:, None] + keys))  # [N, S, 1]
                context = (functional.softmax(scores, 1) * memory).sum(1)
                h = self.cell(torch.cat([x, context], -1), h)
                return h, torch.cat([h, context, x], -1)

            def logits(self, outputs):
                return self.output(torch.tanh(self.readout(self.drop(outputs))))

            def forward(self, source, target):
                memory, keys, h = self.encode(source)
                outputs = []
                for x in self.drop(self.target(target)).unbind(1):
                    h, output = self.step(x, h, memory, keys)
                    outputs.append(output)
                return self.logits(torch.stack(outputs, 1))

        self.torch, self.functional = torch, functional
        self.model = Model()
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.pairs = [torch.from_numpy(ids.astype("int64")) for ids in pairs(BATCH)]

    def train(self) -> None:
        self.model.train()
        source, target = self.pairs
        for _ in range(BATCHES):
            self.optimizer.zero_grad()
            logits = self.model(source, target[:, :-1])
            loss = self.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

    def decode(self, beam: int, sentences: int) -> None:
        torch, model = self.torch, self.model
        model.eval()
        with torch.inference_mode():
            memory, keys, h = (
                x.repeat_interleave(beam, 0)
                for x in model.encode(torch.from_numpy(pairs(sentences)[0].astype("int64")))
            )
            totals = torch.full((sentences, beam), -torch.inf)
            totals[:, 0] = 0  # the hypotheses are equal at the start
            tokens = torch.full((sentences * beam, 1), START)
            first = (torch.arange(sentences) * beam)[:, None]
            for _ in range(WRITTEN):
                h, outputs = model.step(model.target(tokens[:, -1]), h, memory, keys)
                log_probs = torch.log_softmax(model.logits(outputs), -1)
                log_probs[:, END] = -torch.inf
                both = totals[..., None] + log_probs.view(sentences, beam, -1)
                totals, best = both.flatten(1).topk(beam)
                parents = (first + best // TARGET_SIZE).flatten()
                h = h[parents]
                tokens = torch.cat([tokens[parents], (best % TARGET_SIZE).view(-1, 1)], 1)
            assert tokens.shape[1] == WRITTEN + 1


FRAMEWORKS = {"Unroll": Unroll, "PyTorch": PyTorch}


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = {"train": (f"training, batches of {BATCH}", BATCHES * BATCH)}
    for beam in BEAMS:
        for sentences in SENTENCES:
            rows[f"decode_{beam}_{sentences}"] = (
                f"decoding, beam of {beam}, {sentences} at a time", sentences,
            )  # fmt: skip
    methods = dict.fromkeys(FRAMEWORKS, tuple(rows))
    seconds = seconds_in_turns(FRAMEWORKS, (), methods, options.rounds)
    body = []
    for method, (name, count) in rows.items():
        own, other = (count / seconds[framework, method] for framework in FRAMEWORKS)
        body.append([name, f"{own:,.1f}", f"{other:,.1f}", f"{own / other:.2f}"])
    lines = [
        f"Sentences per second, {len(os.sched_getaffinity(0))} cores, medians of {options.rounds}:",
        "",
        *table(["", *FRAMEWORKS, "ratio"], body),
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
