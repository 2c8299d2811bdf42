"""Plays of Shakespeare, from the page "The unreasonable effectiveness of recurrent networks"."""

from unroll.pipelines.datasets.language.base import PlainText
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.lines import read_text

FILE = Source(
    "tinyshakespeare",
    "input.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


class TinyShakespeare(PlainText, skip_registration=True):
    """Plays of Shakespeare: 1,003,854 / 111,540 characters, the first 90 % and the rest.

    The splits are those of nanoGPT; there is no test split. Since the split is in the middle of a
    line, a piece of this dataset may end there.
    """

    SPLITS = ("train", "valid")
    HOMEPAGE = "https://github.com/karpathy/char-rnn"
    CITATION = "Karpathy 2015, The unreasonable effectiveness of recurrent neural networks"
    LICENSE = "public domain"

    def _split_generators(self, dl_manager):
        text = read_text(find(FILE, dl_manager, self.manual_dir))
        cut = int(0.9 * len(text))
        parts = {"train": text[:cut], "valid": text[cut:]}
        return {split: self._generate_examples(part) for split, part in parts.items()}

    def _generate_examples(self, text: str):
        for number, line in enumerate(text.splitlines(keepends=True)):
            yield number, {"text": line}
