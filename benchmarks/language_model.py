"""The speed of the language model, compared with PyTorch's `nn.LSTM` in the loop of its tutorial.

    python benchmarks/language_model.py                      # about four minutes on two cores
    python benchmarks/language_model.py --rounds=1 --models=characters

Training: tokens per second in the loop of PyTorch's example `word_language_model`, with two layers
of 200 or 650 units, and in that of characters: states that are carried from batch to batch, dropout
of 0.2, SGD with clipped gradients. Generation: microseconds per token of a text of 200 tokens,
sampled one by one as that example does; those of LiteRT are the most probable ones, on one core.

Each framework has a process of its own. The processes take turns, so that only one of them works
at a time, and the medians over the rounds are printed, and written to
`benchmarks/results/language_model.md`.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measuring import seconds_in_turns, table

RESULTS = Path(__file__).parent / "results" / "language_model.md"
LENGTH = 200  # tokens of a generated text


@dataclass(frozen=True)
class Sizes:
    """What is compared: V, the sizes of the layers, and the shape of a batch."""

    vocabulary: int
    embedding: int
    units: int
    depth: int
    batch: int
    steps: int  # of a batch
    batches: int  # in a round


MODELS = {
    "words, 2 x 200": Sizes(10_000, 200, 200, 2, 20, 35, 20),
    "words, 2 x 650": Sizes(10_000, 650, 650, 2, 20, 35, 6),
    "characters, 1 x 256": Sizes(65, 64, 256, 1, 32, 64, 20),
}


def text(sizes: Sizes) -> np.ndarray:
    """Random ids, `[N]`, of which the small ones are frequent."""
    uniform = np.random.default_rng(0).random(200_000)
    return (sizes.vocabulary**uniform).astype("uint16")


class Unroll:
    """The app `language_model`."""

    def __init__(self, sizes: Sizes):
        from unroll.apps.core.quiet import import_tensorflow

        import_tensorflow()
        import keras
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter

        from unroll.apps.core.protocol import Trained
        from unroll.apps.language_model import app
        from unroll.apps.language_model.generation import Generator, units_of
        from unroll.apps.shared.token_losses import MeanLoss
        from unroll.layers.litert_tensorflow import convert_functions
        from unroll.pipelines import language_modeling as modeling

        self.sizes = sizes
        config = app.Config(
            units_of_text="words", embedding_dim=sizes.embedding, units=sizes.units,
            depth=sizes.depth, batch_size=sizes.batch, sequence_length=sizes.steps,
            embedding_dropout=0.2, dropout=0.2, output_dropout=0.2, average=0.0,
            max_length=LENGTH,
        )  # fmt: skip
        names = [*modeling.SPECIAL, *(f"w{k}" for k in range(sizes.vocabulary - 2))]
        assets = {"vocabulary": names}
        self.model = app.build(config, assets)
        self.model.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.25), MeanLoss())
        self.batches = modeling.training_batches(
            text(sizes), sizes.batch, sizes.steps, seed=0, random_lengths=False
        ).repeat()
        trained = Trained(config, assets, self.model)
        service = app.serve(trained)
        self.generator = Generator(trained, units_of(trained))
        self.serving = service.functions["serving_default"]
        request = service.requests(["w1"])
        self.inputs = {k: tf.constant(v) for k, v in request["serving_default"].items()}
        self.inputs |= {"max_length": tf.constant([LENGTH]), "temperature": tf.constant([1.0])}
        litert = Interpreter(model_content=convert_functions(service.litert), num_threads=1)
        self.step, self.greedy = map(litert.get_signature_runner, ("step", "generate"))
        self.start = request["step"]
        self.prompt = request["generate"] | {"max_length": np.array(LENGTH, "int32")}

    def train(self) -> None:
        self.model.fit(self.batches, steps_per_epoch=self.sizes.batches, shuffle=False, verbose=0)

    def predict(self) -> None:
        assert len(list(self.generator.stream("w1"))) == LENGTH

    def serving_default(self) -> None:
        self.serving(**self.inputs)["text"].numpy()

    def litert_step(self) -> None:
        inputs = dict(self.start)
        for _ in range(LENGTH):
            outputs = self.step(**inputs)
            token = outputs.pop("logits")[0, 1:].argmax() + 1  # not <unk>
            inputs = {"token": np.array([token], "int32"), **outputs}

    def litert_generate(self) -> None:
        assert self.greedy(**self.prompt)["tokens"].shape == (1, LENGTH)


class PyTorch:
    """The example `word_language_model` of PyTorch: `main.py` and `generate.py`."""

    def __init__(self, sizes: Sizes):
        import torch
        from torch import nn

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.drop = nn.Dropout(0.2)
                self.encoder = nn.Embedding(sizes.vocabulary, sizes.embedding)
                self.rnn = nn.LSTM(
                    sizes.embedding, sizes.units, sizes.depth, dropout=0.2 * (sizes.depth > 1)
                )
                self.decoder = nn.Linear(sizes.units, sizes.vocabulary)

            def forward(self, tokens, hidden):
                output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
                logits = self.decoder(self.drop(output)).view(-1, sizes.vocabulary)
                return nn.functional.log_softmax(logits, dim=1), hidden

        self.sizes, self.torch = sizes, torch
        self.model, self.criterion = Model(), nn.NLLLoss()
        ids = torch.from_numpy(text(sizes).astype("int64"))
        rows = len(ids) // sizes.batch
        self.source = ids[: rows * sizes.batch].view(sizes.batch, -1).t().contiguous()  # [N, B]

    def _hidden(self, batch: int) -> tuple:
        zeros = self.torch.zeros(self.sizes.depth, batch, self.sizes.units)
        return zeros, zeros

    def train(self) -> None:
        steps = self.sizes.steps
        self.model.train()
        hidden = self._hidden(self.sizes.batch)
        for k in range(self.sizes.batches):
            data = self.source[k * steps : (k + 1) * steps]
            targets = self.source[k * steps + 1 : (k + 1) * steps + 1].reshape(-1)
            self.model.zero_grad()
            hidden = tuple(state.detach() for state in hidden)
            output, hidden = self.model(data, hidden)
            self.criterion(output, targets).backward()
            self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.25)
            for p in self.model.parameters():
                p.data.add_(p.grad, alpha=-1.0)

    def predict(self) -> None:
        self.model.eval()
        hidden = self._hidden(1)
        token = self.torch.ones(1, 1, dtype=self.torch.long)
        with self.torch.no_grad():
            for _ in range(LENGTH):
                output, hidden = self.model(token, hidden)
                token.fill_(self.torch.multinomial(output.squeeze().exp(), 1)[0])


FRAMEWORKS = {"Unroll": Unroll, "PyTorch": PyTorch}
GENERATION = {
    "Unroll": ("predict", "serving_default", "litert_step", "litert_generate"),
    "PyTorch": ("predict",),
}


def main() -> None:
    """Prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", default="", help="the beginning of their names")
    options = parser.parse_args()
    training, generation = [], []
    for name, sizes in MODELS.items():
        if not name.startswith(options.models):
            continue
        seconds = seconds_in_turns(
            FRAMEWORKS,
            (sizes,),
            {framework: ("train", *methods) for framework, methods in GENERATION.items()},
            options.rounds,
        )
        tokens = sizes.batch * sizes.steps * sizes.batches
        own, other = (tokens / seconds[framework, "train"] for framework in FRAMEWORKS)
        training.append([name, f"{own:,.0f}", f"{other:,.0f}", f"{own / other:.2f}"])
        times = [seconds["Unroll", method] for method in GENERATION["Unroll"]]
        times.append(seconds["PyTorch", "predict"])
        generation.append([name, *(f"{each / LENGTH * 1e6:,.0f}" for each in times)])
    lines = [
        f"Training, tokens per second, {len(os.sched_getaffinity(0))} cores:",
        "",
        *table(["model", "Unroll", "PyTorch", "ratio"], training),
        "",
        "Generation, microseconds per token:",
        "",
        *table(
            [
                *("model", "`predict`", "`serving_default`", "LiteRT `step`"),
                *("LiteRT `generate`", "PyTorch"),
            ],
            generation,
        ),
    ]
    print("\n".join(lines))
    if not options.models:
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
