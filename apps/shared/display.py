"""Results as text for a terminal, and as the parts of a page."""

from rich.text import Text


def weighted_tokens(tokens: list[str], weights: list[float] | None = None) -> Text:
    """Tokens, highlighted by weight. Weights of 0.1 and more are printed after the token."""
    line = Text()
    if weights is None:
        return line.append(" ".join(tokens))
    largest = max(weights, default=0.0)
    for token, weight in zip(tokens, weights, strict=True):
        share = weight / largest if largest else 0.0
        line.append(token, "reverse bold" if share > 2 / 3 else "bold" if share > 1 / 3 else "dim")
        line.append(f"({weight:.2f}) " if weight >= 0.1 else " ", "dim")
    return line


COLORS = ("cyan", "green", "yellow", "magenta", "blue", "red")


def tagged_tokens(tokens: list[str], tags: list[str], captions: list[str] | None = None) -> Text:
    """Tokens; those of a BIO span in the color of its label, followed by its caption.

    Args:
        tokens: of the text.
        tags: of each token.
        captions: of each span, by default its label.
    """
    line, names = Text(), sorted({tag[2:] for tag in tags if tag[2:]})
    following = iter(captions or ())
    for k, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        if not tag[2:]:
            line.append(f"{token} ")
            continue
        color = COLORS[names.index(tag[2:]) % len(COLORS)]
        last = tags[k + 1 : k + 2] != [f"I-{tag[2:]}"]
        line.append(f"{token} " if not last else token, f"bold {color}")
        if last:
            line.append(f"[{next(following, tag[2:])}] ", f"dim {color}")
    return line


def weights_of(tokens: list[str], weights: list[float]) -> list[tuple[str, float]]:
    """Tokens with their weights, for a page."""
    return [(f"{token} ", weight) for token, weight in zip(tokens, weights, strict=True)]


def marked_spans(text: str, spans: list[tuple[int, int, str]]) -> list[tuple[str, str | None]]:
    """A text in parts, for a page.

    Args:
        text: any text.
        spans: the first character, the end and the label of some parts, in order.

    Returns:
        All parts, each with its label or `None`.

    >>> marked_spans("to Rome!", [(3, 7, "city")])
    [('to ', None), ('Rome', 'city'), ('!', None)]
    """
    parts, done = [], 0
    for begin, end, label in [*spans, (len(text), len(text), None)]:
        parts += [(text[done:begin], None), (text[begin:end], label)]
        done = end
    return [(part, label) for part, label in parts if part]


def scored_rows(texts: list[str], scores: list[float]) -> list[list]:
    """Texts and scores as the rows of a table on a page."""
    return [[text, round(score, 3)] for text, score in zip(texts, scores, strict=True)]
