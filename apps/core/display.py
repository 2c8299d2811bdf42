"""What results look like in a terminal."""

from rich.text import Text


def weighted_words(tokens: list[str], weights: list[float] | None = None) -> Text:
    """Words, the brighter the more they weigh; weights of a tenth and more are written out."""
    line = Text()
    if weights is None:
        return line.append(" ".join(tokens))
    most = max(weights, default=0.0)
    for token, weight in zip(tokens, weights, strict=True):
        share = weight / most if most else 0.0
        line.append(token, "reverse bold" if share > 2 / 3 else "bold" if share > 1 / 3 else "dim")
        line.append(f"({weight:.2f}) " if weight >= 0.1 else " ", "dim")
    return line
