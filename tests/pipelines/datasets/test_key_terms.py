"""Datasets of key terms: the generated articles, Inspec, SemEval-2017, and your own files."""

import hashlib
from collections import Counter

import pytest
import tensorflow as tf

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines import datasets, errors, tagging
from unroll.pipelines.datasets.key_terms import articles
from unroll.pipelines.datasets.key_terms.inspec import Inspec
from unroll.pipelines.datasets.key_terms.semeval2017 import SemEval2017
from unroll.pipelines.datasets.key_terms.term_files import TermFiles, read_terms
from unroll.pipelines.datasets.tagging.schemes import to_bio
from unroll.pipelines.errors import DataError


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


@pytest.fixture(scope="module")
def generated():
    return articles.generate()


def terms(example: dict) -> list[str]:
    """The mentions of an example, in the order of the text."""
    found: list[list[str]] = []
    for word, tag in zip(example["words"], example["tags"], strict=True):
        if tag.startswith("B-"):
            found.append([word])
        elif tag.startswith("I-"):
            found[-1].append(word)
    return [" ".join(words) for words in found]


class TestArticles:
    def test_they_are_valid_and_unique(self, generated):
        assert {split: len(rows) for split, rows in generated.items()} == articles.SIZES
        texts = [tuple(e["words"]) for rows in generated.values() for e in rows]
        assert len(set(texts)) == len(texts)
        tags = [example["tags"] for rows in generated.values() for example in rows]
        assert to_bio("articles", tags, [range(len(row)) for row in tags]) == tags

    def test_they_depend_on_the_seed_and_the_size_alone(self, generated):
        sizes = {"train": 40, "valid": 16, "test": 16}
        small = articles.generate(sizes)
        assert articles.generate(sizes) == small
        assert articles.generate(sizes, seed=2) != small
        assert small["train"] == generated["train"][:40]

    def test_version_changes_with_the_articles(self, generated):
        """If this fails, they have changed: increase `VERSION`, or prepared ones are read."""
        digest = hashlib.sha256(repr(generated).encode()).hexdigest()[:12]
        assert (str(articles.Articles.VERSION), digest) == ("1.1.0", "baed906b69fa")

    def test_the_theme_decides_whether_a_term_is_key(self, generated):
        every = [term for pair in articles.TERMS.values() for term in pair]
        assert len(set(every)) == 18
        key, mentioned = Counter(), Counter()
        for example in generated["train"]:
            text = " ".join(example["words"]).lower()
            key.update(set(map(str.lower, terms(example))))
            mentioned.update(term for term in every if f" {term} " in f" {text} ")
        assert set(key) == set(every)
        # The most frequent tag of a term is right in little more than half of the articles.
        assert all(0.35 < key[term] / mentioned[term] < 0.65 for term in every)
        for example in generated["train"][:200]:
            pairs = [
                p for p, own in articles.TERMS.items() for t in terms(example) if t.lower() in own
            ]
            assert set.intersection(*map(set, pairs)) != set()


@pytest.mark.parametrize(
    ("dataset", "sizes", "labels"),
    [
        (Inspec, (1000, 500, 500), {"KEY"}),
        (SemEval2017, (350, 50, 100), {"Material", "Process", "Task"}),
    ],
)
def test_published_datasets(dataset, sizes, labels, manual_dir, tmp_path):
    splits = read_all(dataset, tmp_path)
    assert tuple(len(splits[split]) for split in ("train", "valid", "test")) == sizes
    for rows in splits.values():
        assert {tag[2:] for row in rows for tag in row["tags"]} - {""} == labels
        assert not {"-LRB-", "``"} & {word for row in rows for word in row["words"]}
        # `predict` splits the texts into nearly the same words.
        texts = [" ".join(row["words"]) for row in rows]
        found = tagging.split_words(tf.constant(texts), documents=True)[0].to_list()
        same = sum(
            sum((Counter(map(str.encode, row["words"])) & Counter(words)).values())
            for row, words in zip(rows, found, strict=True)
        )
        assert same > 0.99 * sum(len(row["words"]) for row in rows)


TABLE = (
    "text\tterms\n"
    "Neural networks learn. A neural network is a network."
    "\tneural network;network; Neural Networks\n"
    "Köln liegt am Rhein.\tköln;Donau;\n"
)


class TestTables:
    def read(self, folder, text: str, name: str = "train.tsv"):
        (folder / name).write_text(text)
        return read_terms(folder / name)

    def test_all_mentions_are_tagged_and_missing_terms_are_counted(self, tmp_path, capsys):
        first, second = self.read(tmp_path, TABLE)
        assert " ".join(first["words"]) == "Neural networks learn . A neural network is a network ."
        assert terms(first) == ["Neural networks", "neural network", "network"]
        assert terms(second) == ["Köln"]
        [line] = capsys.readouterr().err.splitlines()
        assert "train.tsv: 1 of 5 terms are not in their text, or only inside longer ones" in line
        assert line.endswith("'Donau'.")

    def test_a_term_that_is_only_inside_a_longer_one_is_counted(self, tmp_path, capsys):
        [example] = self.read(tmp_path, "text\tterms\nBig data is big.\tdata;big data\n")
        assert terms(example) == ["Big data"]
        assert "1 of 2 terms" in capsys.readouterr().err

    def test_commas(self, tmp_path):
        [example] = self.read(tmp_path, 'terms,text\r\n"a; b c","x a, b c"\r\n', "train.csv")
        assert terms(example) == ["a", "b c"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("text\tlabel\nx\ty\n", "train.tsv, line 1: no column 'terms'; it has text, label"),
            ("text\tterms\nx\n", "train.tsv, line 2: 1 columns, the header has 2"),
            ("text\tterms\n \tx\n", "train.tsv, line 2: the text is empty"),
            ("text\tterms\nx\t;\n", "train.tsv: no text has a term"),
        ],
    )
    def test_errors_name_the_file_and_the_line(self, text, message, tmp_path):
        with pytest.raises(DataError, match=message):
            self.read(tmp_path, text)


class TestFolders:
    def test_columns_and_tables_are_the_same(self, tmp_path):
        found = {}
        for name, text in (
            ("train.conll", "Big B-KEY\ndata I-KEY\n. O\n\n"),
            ("train.tsv", "text\tterms\nBig data.\tbig data\n"),
        ):
            folder = tmp_path / name
            folder.mkdir()
            (folder / name).write_text(text)
            (folder / name.replace("train", "dev")).write_text(text)
            found[name] = read_all(TermFiles, tmp_path, folder=folder)
        assert found["train.conll"] == found["train.tsv"]
        assert set(found["train.tsv"]) == {"train", "valid"}

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ([], "has no training data: train.tsv with the columns text and terms, or train.conll"),
            (["test.tsv"], "has no training data: train.tsv"),
            (["train.tsv", "train.csv"], "has train twice, .*train.tsv and .*train.csv"),
            (["train.tsv", "valid.conll"], "is not read: name the file"),
            (["train.tsv", "val.tsv"], "is not read: name the file valid.tsv, valid.csv"),
        ],
    )
    def test_errors(self, names, message, tmp_path):
        for name in names:
            (tmp_path / name).write_text("text\tterms\nx\tx\n" * (name != "valid.conll"))
        with pytest.raises(DataError, match=message):
            TermFiles(tmp_path, data_dir=tmp_path)

    def test_equal_documents_are_held_out_together(self, tmp_path, capsys):
        rows = "".join(f"Term{k} is here.\tterm{k}\n" for k in [*range(30)] * 3)
        (tmp_path / "train.tsv").write_text("text\tterms\n" + rows)
        splits = read_all(TermFiles, tmp_path / "data", folder=tmp_path)
        first, second = ({tuple(e["words"]) for e in splits[s]} for s in ("train", "valid"))
        assert not first & second
        assert len(splits["valid"]) == 9
        assert (
            "9 of 90 documents are held out for it, by document (3 of 30)"
            in capsys.readouterr().err
        )

    def test_words_that_predict_splits_are_counted(self, tmp_path, capsys):
        (tmp_path / "train.conll").write_text("New York\tB-KEY\n5%\tO\n.\tO\n\n" * 12)
        datasets.builder(str(tmp_path), kind="key_terms", data_dir=tmp_path / "data")
        assert "24 of 36 words contain spaces or punctuation" in capsys.readouterr().err
