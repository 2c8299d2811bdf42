"""F1 of the first 5 and 10 key terms: TF-IDF, YAKE, and trained runs.

    python benchmarks/key_terms.py [--data=inspec] [RUN ...]

TF-IDF is the baseline of the app. YAKE (Campos et al. 2020, "YAKE! Keyword extraction from single
documents using multiple local features") is `pip install yake`, with its default options: phrases
of up to three words, and no training. All terms are stemmed and counted in the same way.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import tyro
from measuring import table

from unroll.apps.core.quiet import import_tensorflow


@dataclass(frozen=True)
class Options:
    # folders of runs that were trained on the dataset
    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    # name of a dataset
    data: str = "inspec"
    # split to evaluate
    split: str = "test"


def yake_rankings(texts: list[str], most: int) -> list[list[list[str]]]:
    """The words of the best phrases of each text, by YAKE."""
    import yake

    extractor = yake.KeywordExtractor(lan="en", n=3, top=4 * most)
    return [[phrase.split() for phrase, _ in extractor.extract_keywords(text)] for text in texts]


def main(options: Options) -> None:
    """Prints the table."""
    import_tensorflow()
    from unroll.apps.core.evaluation import load_split
    from unroll.apps.core.runs import Run
    from unroll.apps.key_terms import app, metrics

    config = app.PRESETS[options.data]
    data = app.load(config, ("train", options.split))
    documents = metrics.read(data[options.split], data.assets["tags"])
    most = max(metrics.RANKS)
    rankings = {}
    tf_idf = metrics.TfIdf([words for words, _ in metrics.read(data["train"], data.assets["tags"])])
    rankings["TF-IDF"] = [metrics.rank(words, tf_idf.rank(words)) for words, _ in documents]
    rankings["YAKE"] = [
        list(dict.fromkeys(map(metrics.stemmed, phrases)))
        for phrases in yake_rankings([" ".join(words) for words, _ in documents], most)
    ]
    rows = []
    for name, ranked in rankings.items():
        found = [
            metrics.Document(words, tags, ["O"] * len(words), [0.0] * len(words), ranking)
            for (words, tags), ranking in zip(documents, ranked, strict=True)
        ]
        rows.append([name, *(f"{metrics.f1_at(found, k):.4f}" for k in metrics.RANKS)])
    for path in options.runs:
        trained, dataset = load_split(app, [Run.open(app, path)], options.split)
        figures = app.score(trained, dataset)
        rows.append([path, *(f"{figures[f'f1_at_{k}']:.4f}" for k in metrics.RANKS)])
    print(f"{options.data}, {options.split} split, {len(documents)} documents\n")
    print("\n".join(table(["", *(f"F1 at {k}" for k in metrics.RANKS)], rows)))


if __name__ == "__main__":
    main(tyro.cli(Options))
