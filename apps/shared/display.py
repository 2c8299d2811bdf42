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


COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")


def tagged_words(tokens: list[str], tags: list[str]) -> Text:
    """Words, those of a BIO span in one colour with its label behind; a label keeps its colour."""
    line, names = Text(), sorted({tag[2:] for tag in tags if tag[2:]})
    for k, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        if not tag[2:]:
            line.append(f"{token} ")
            continue
        colour = COLOURS[names.index(tag[2:]) % len(COLOURS)]
        last = tags[k + 1 : k + 2] != [f"I-{tag[2:]}"]
        line.append(f"{token} " if not last else token, f"bold {colour}")
        if last:
            line.append(f"[{tag[2:]}] ", f"dim {colour}")
    return line
