"""A result as text for a terminal."""

import math

from rich.text import Text

from unroll.pipelines.language_modeling import END, SPACE, SPECIAL

# The style of a token by its surprise in bits.
_STYLES = ((1, "dim"), (3, ""), (6, "yellow"), (10, "red"), (math.inf, "bold red"))


def show(result: dict) -> Text:
    """A prompt with its continuation, or the surprise in a text."""
    if "continuation" in result:
        return Text(result["prompt"], "bold") + Text(result["continuation"])
    tokens, found = result["tokens"], result["log_probabilities"]
    total = -sum(found) / math.log(2)
    line = Text(f"{total:.1f} bits, {total / max(len(tokens), 1):.2f} per token\n", "bold")
    for text, log_probability in zip(spaced(tokens), found, strict=True):
        bits = -log_probability / math.log(2)
        line.append(text, next(style for most, style in _STYLES if bits < most))
    return line


def bits_of(result: dict) -> list[tuple[str, float]]:
    """The tokens of a text with their surprise in bits, for a page."""
    bits = [-found / math.log(2) for found in result["log_probabilities"]]
    return list(zip(spaced(result["tokens"]), bits, strict=True))


def spaced(tokens: list[str]) -> list[str]:
    """Tokens as they look in a text, with the spaces before words, and a mark at line ends."""
    subwords = any(SPACE in token for token in tokens)
    words = not subwords and any(len(token) > 1 for token in set(tokens) - set(SPECIAL))
    shown = []
    for token in tokens:
        if token == SPECIAL[END]:
            shown.append("\u23ce\n")
        elif subwords:
            shown.append(token.replace(SPACE, " "))
        else:
            shown.append(f" {token}" if words and shown and shown[-1][-1] != "\n" else token)
    return shown
