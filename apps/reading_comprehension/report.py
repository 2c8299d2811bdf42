"""Stories with questions, as people give them; and shown with what the model attended to."""

from pathlib import Path

import matplotlib.figure
import numpy as np
from rich.text import Text

from unroll.apps.core.errors import UsageError
from unroll.apps.reading_comprehension.serving import FIRST_WORD


def is_story(given: str) -> bool:
    """Whether an input on the command line is a story, or its file: it ends in no question mark."""
    return not given.rstrip().endswith("?")


def read(given: str) -> str:
    """A story, or what stands in the `.txt` file of that name.

    Raises:
        UsageError: if the file cannot be read.
    """
    if not given.lower().endswith(".txt"):
        return given
    try:
        return Path(given).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{given}: {getattr(error, 'strerror', 'it is not UTF-8')}.") from None


def results(ask, service, asked: list[tuple[str, str]], draws: bool) -> list[dict]:
    """What the model answers to each pair, with its facts and their weights.

    Where it draws, a picture of the hops is written into the working folder.
    """
    found = []
    for number, ((_, question), answer) in enumerate(
        zip(asked, ask(service, asked), strict=True), start=1
    ):
        facts = [fact for fact in answer["facts"] if fact]
        result = {
            "question": question,
            "answer": answer["answer"],
            "score": max(answer["scores"][FIRST_WORD:]),
            "facts": facts,
            "attention": [weights[: len(facts)] for weights in answer["attention"]],
        }
        if draws and facts:
            path = Path(f"story.hops-{number}.png")
            draw(result, path)
            result["picture"] = str(path)
        found.append(result)
    return found


def _rows(result: dict) -> list[tuple[str, np.ndarray]]:
    """Each fact with its weight in each hop, and behind them what was attended to no fact."""
    weights = np.array(result["attention"])  # [K, S]
    nothing = np.maximum(1 - weights.sum(axis=1), 0)
    return [*zip(result["facts"], weights.T, strict=True), ("(no fact)", nothing)]


def text(result: dict) -> Text:
    """The answer, and each fact behind its weights, from the first hop on."""
    line = Text(f"{result['answer']} {result['score']:.1%}", style="bold")
    for fact, weights in _rows(result):
        shares = "  ".join(f"{weight:4.0%}" for weight in weights)
        line += Text(f"\n       {shares}  {fact}", style="" if max(weights) >= 0.1 else "dim")
    return line + Text(f"\n       {result['picture']}" if "picture" in result else "", style="dim")


def draw(result: dict, path: Path) -> None:
    """The weight of each fact, a row, in each hop, a column."""
    names, weights = zip(*_rows(result), strict=True)
    weights = np.array(weights)  # [S + 1, K]
    figure = matplotlib.figure.Figure(figsize=(7, 1.2 + 0.3 * len(weights)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_yticks(range(len(weights)), names, fontsize=8)
    axis.set_xticks(range(weights.shape[1]), [f"hop {k + 1}" for k in range(weights.shape[1])])
    for (row, column), weight in np.ndenumerate(weights):
        colour = "white" if weight > 0.5 else "black"
        axis.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_title(f"{result['question']} {result['answer']} ({result['score']:.0%})", fontsize=10)
    figure.savefig(path, dpi=100)
