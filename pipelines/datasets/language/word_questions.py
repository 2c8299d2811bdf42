"""Published questions about English words: analogies, and pairs of rated similarity."""

import itertools
from typing import ClassVar

import tensorflow as tf

from unroll.pipelines import word_questions
from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.datasets.sources import Source, find

ANALOGIES = Source(
    "analogies",
    "questions-words.txt",
    "https://raw.githubusercontent.com/tmikolov/word2vec/master/questions-words.txt",
    "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36",
)
_ADDRESS = (
    "https://raw.githubusercontent.com/mfaruqui/eval-word-vectors/"
    "94b3dd9fdbac7ed08dbee7179cd5ee464acf0594/data/word-sim/"
)
_PAIRS = {
    "WordSim-353": (
        "EN-WS-353-ALL.txt",
        "ce12919b240af45bdf46d243601eaca2b6212b159b5e7e9b435ee7ee40c5619c",
    ),
    "SimLex-999": (
        "EN-SIMLEX-999.txt",
        "405394ffb7d25f6d0e3c041f87c9f27d29dc6b047506769953e85c4523b11685",
    ),
    "MEN": (
        "EN-MEN-TR-3k.txt",
        "888b13580faa362c7b11da0a670258cf1b1eb4bf0ecbcd418918729a3bd3f43a",
    ),
}
SIMILARITY = {
    name: Source("word_similarity", file, _ADDRESS + file, sha256)
    for name, (file, sha256) in _PAIRS.items()
}


class WordQuestions(Builder, skip_registration=True):
    """19,544 analogies in 14 sections, and 353, 999 and 3,000 pairs of words with a similarity.

    The analogies of word2vec (Mikolov et al. 2013), WordSim-353 (Finkelstein et al. 2002),
    SimLex-999 (Hill et al. 2015) and MEN (Bruni et al. 2014). An example has the four words of an
    analogy, or two words and their rating, with spaces between the words.
    """

    FEATURES: ClassVar[dict] = {"section": tf.string, "words": tf.string, "rating": tf.float32}
    SPLITS = ("test",)
    ORDERED = True
    HOMEPAGE = "https://github.com/mfaruqui/eval-word-vectors"

    def _split_generators(self, dl_manager):
        analogies = find(ANALOGIES, dl_manager, self.manual_dir)
        sections = word_questions.read_analogies(analogies)
        for name, source in SIMILARITY.items():
            section = word_questions.read_similarity(find(source, dl_manager, self.manual_dir))
            section.name = name
            sections.append(section)
        return {"test": self._generate_examples(sections)}

    def _generate_examples(self, sections: list[word_questions.Section]):
        number = itertools.count()
        for section in sections:
            ratings = section.ratings or [0.0] * len(section.words)
            for words, rating in zip(section.words, ratings, strict=True):
                example = {"section": section.name, "words": " ".join(words), "rating": rating}
                yield next(number), example
