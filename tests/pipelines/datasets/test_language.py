"""Datasets of plain text: the grammar and its entropy, published texts, your own files."""

import io
import math
import random
import tarfile
from collections import Counter

import pytest
from tensorflow_datasets.core import shuffle

from tests.pipelines.datasets.helpers import read_all
from tests.pipelines.mutations import outcomes
from unroll.pipelines import datasets, errors
from unroll.pipelines.datasets.language import grammar, plain_files, ptb, tiny_shakespeare, wiki10m
from unroll.pipelines.datasets.sources import Source
from unroll.pipelines.errors import DataError

WORDS = {
    symbol for rules in grammar.RULES.values() for _, right in rules for symbol in right.split()
} - set(grammar.RULES)


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


def text(pieces: list[dict]) -> str:
    return "".join(piece["text"] for piece in pieces)


class TestGrammar:
    def test_the_rules_are_probabilities(self):
        for rules in grammar.RULES.values():
            assert sum(p for p, _ in rules) == pytest.approx(1)
        assert not any(word.isupper() for word in WORDS)  # a nonterminal without rules

    def test_entropy_is_that_of_the_partition_function(self):
        """If Z(s) is the sum of P(x)^s over all derivations, the entropy is -Z'(1).

        The expected length is the derivative of the sum of P(x) z^|x| at z = 1.
        """

        def partition(power: float, z: float, length) -> float:
            values = dict.fromkeys(grammar.RULES, 0.0)
            for _ in range(300):  # converges to the least fixed point
                values = {
                    symbol: sum(
                        p**power
                        * math.prod(
                            values[each] if each in values else z ** length(each)
                            for each in right.split()
                        )
                        for p, right in rules
                    )
                    for symbol, rules in grammar.RULES.items()
                }
            return values[grammar.START]

        def slope(function) -> float:
            return (function(1 + 1e-5) - function(1 - 1e-5)) / 2e-5

        nats = -slope(lambda s: partition(s, 1.0, len))
        characters = slope(lambda z: partition(1.0, z, lambda word: len(word) + 1))
        words = 1 + slope(lambda z: partition(1.0, z, lambda word: 1))
        assert grammar.sentence_entropy() == pytest.approx(nats, rel=1e-5)
        assert grammar.entropy("characters") == pytest.approx(nats / characters, rel=1e-5)
        assert grammar.entropy("words") == pytest.approx(nats / words, rel=1e-5)
        with pytest.raises(ValueError, match="'characters' or 'words', got 'subwords'"):
            grammar.entropy("subwords")

    def test_the_docstring_states_the_entropy(self):
        stated = " ".join(grammar.Grammar.__doc__.split())
        characters, words = grammar.entropy("characters"), grammar.entropy("words")
        assert f"{characters:.4f} nats or {characters / math.log(2):.4f} bits per char" in stated
        assert f"{words:.4f} nats per word (a perplexity of {math.exp(words):.3f})" in stated

    def test_no_sentence_has_two_derivations(self):
        """A sentence determines its derivation, so that the entropies of both are the same."""
        rng, found = random.Random(0), {}
        for _ in range(20_000):
            words, log_probability = grammar.sample(rng)
            line = " ".join(words)
            assert found.setdefault(line, log_probability) == pytest.approx(log_probability)
        # All derivations of up to 16 symbols; of each word class the first word is enough.
        rules = {
            symbol: own[:1] if all(right in WORDS for _, right in own) else own
            for symbol, own in grammar.RULES.items()
        }
        sentences, waiting = Counter(), [((), ("CLAUSE",))]
        while waiting:
            words, stack = waiting.pop()
            if not stack:
                sentences[words] += 1
            elif stack[0] in WORDS:
                waiting.append(((*words, stack[0]), stack[1:]))
            else:
                for _, right in rules[stack[0]]:
                    new = (*right.split(), *stack[1:])
                    if len(words) + sum(symbol != "MORE" for symbol in new) <= 16:
                        waiting.append((words, new))
        assert len(sentences) > 1000
        assert set(sentences.values()) == {1}

    def test_a_sample_has_the_entropy(self):
        lines = list(grammar.sentences("test", grammar.SENTENCES * grammar.SIZES["test"]))
        characters = sum(len(line) for line, _ in lines)
        nats = -sum(log_probability for _, log_probability in lines) / characters
        assert nats == pytest.approx(grammar.entropy("characters"), rel=0.01)
        assert f"the grammar itself has {nats:.4f} nats" in grammar.Grammar.__doc__

    def test_the_splits_are_ordered_and_differ(self, tmp_path):
        builder = datasets.builder("grammar", size=0.01, data_dir=tmp_path)
        found = {}
        for split, pieces in (("train", 30), ("valid", 8), ("test", 8)):
            rows = [e["text"].decode() for e in datasets.read(builder, split).as_numpy_iterator()]
            assert len(rows) == pieces
            found[split] = "".join(rows)
            expected = grammar.sentences(split, grammar.SENTENCES * pieces)
            assert found[split] == "".join(line for line, _ in expected)
        assert not found["train"].startswith(found["valid"])


def test_ptb(manual_dir, tmp_path):
    found = read_all(ptb.Ptb, tmp_path, manual_dir=manual_dir)
    counts = {split: sum(len(row["text"].split()) + 1 for row in found[split]) for split in found}
    assert counts == {"train": 929_589, "valid": 73_760, "test": 82_430}
    assert found["valid"][0]["text"].startswith("consumers may want to move their telephones")
    assert all(row["text"].endswith("\n") for row in found["test"])


def test_tiny_shakespeare_is_split_as_by_nano_gpt(manual_dir, tmp_path):
    found = read_all(tiny_shakespeare.TinyShakespeare, tmp_path, manual_dir=manual_dir)
    whole = text(found["train"]) + text(found["valid"])
    assert (len(text(found["train"])), len(text(found["valid"]))) == (1_003_854, 111_540)
    assert whole == (manual_dir / "tinyshakespeare" / "input.txt").read_text()


def articles(path, count: int) -> None:
    path.parent.mkdir(parents=True)
    rows = [
        f'<doc id="{k}" url="?curid={k}" title="T{k}">\nT{k}\n\nText {k} é.\n\n</doc>\n'
        for k in range(count)
    ]
    with tarfile.open(path, "w:gz") as file:
        for name, part in (
            ("text/AA/wiki_01", rows[count // 2 :]),
            ("text/AA/wiki_00", rows[: count // 2]),
        ):
            contents = "".join(part).encode()
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            file.addfile(info, io.BytesIO(contents))


def test_wiki10m_is_held_out_by_article(tmp_path, monkeypatch):
    monkeypatch.setattr(wiki10m.Wiki10m, "COUNT", 300)
    monkeypatch.setattr(wiki10m, "ARCHIVE", Source("wiki10m", "wiki_text_AA.tar.gz", "http://x"))
    path = tmp_path / "wiki10m" / "wiki_text_AA.tar.gz"
    articles(path, 300)
    found = read_all(wiki10m.Wiki10m, tmp_path / "prepared", manual_dir=tmp_path)
    everything = [row["text"] for split in found for row in found[split]]
    assert sorted(everything) == sorted(f"T{k}\nText {k} é.\n\n" for k in range(300))
    assert found["train"][0]["text"].startswith("T0\n")
    assert 0 < len(found["valid"]) < 20
    assert 0 < len(found["test"]) < 20
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"wiki_text_AA\.tar\.gz is not a complete archive"):
        read_all(wiki10m.Wiki10m, tmp_path / "prepared", manual_dir=tmp_path)


LINES = [f"Line {k} is not “like” the others, naïve 😀.\n" for k in range(60)]


def own(path, tmp_path) -> dict[str, str]:
    """The text of each split of own files."""
    builder = datasets.builder(str(path), kind="plain_text", data_dir=tmp_path / "prepared")
    return {
        split: "".join(
            e["text"].decode() for e in datasets.read(builder, split).as_numpy_iterator()
        )
        for split in builder.split_names
    }


class TestOwnFiles:
    def test_a_file_is_cut_at_the_end_of_a_line(self, tmp_path, capsys):
        path = tmp_path / "book.txt"
        path.write_text("".join(LINES), encoding="utf-8")
        found = own(path, tmp_path)
        assert found["train"] + found["valid"] == "".join(LINES)
        assert found["train"].endswith("\n")
        assert len(found["valid"]) == pytest.approx(len("".join(LINES)) / 10, rel=0.3)
        assert "book.txt has no valid.txt: the last tenth of the text is held out" in (
            capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        ("encoding", "end"),
        [("utf-8-sig", "\r\n"), ("utf-16", "\n"), ("utf-16-le-with-mark", "\r"), ("utf-8", "\r")],
    )
    def test_encodings_and_line_ends_do_not_matter(self, tmp_path, encoding, end):
        plain, other = tmp_path / "a.txt", tmp_path / "b.txt"
        plain.write_text("".join(LINES), encoding="utf-8")
        written = "".join(LINES).replace("\n", end)
        if encoding.endswith("with-mark"):
            other.write_bytes(("\ufeff" + written).encode("utf-16-le"))
        else:
            other.write_bytes(written.encode(encoding))
        assert own(other, tmp_path) == own(plain, tmp_path)

    def test_a_folder(self, tmp_path):
        folder = tmp_path / "books"
        (folder / "sub").mkdir(parents=True)
        for k, name in enumerate(["b.txt", "a.txt", "sub/c.txt"]):
            (folder / name).write_text("".join(LINES[20 * k : 20 * k + 20]).removesuffix("\n"))
        found = own(folder, tmp_path)
        expected = LINES[20:40] + LINES[:20] + LINES[40:]
        assert found["train"] + found["valid"] == "".join(expected)

    def test_splits_of_a_folder(self, tmp_path):
        for k, split in enumerate(("train", "valid", "test")):
            (tmp_path / f"{split}.txt").write_text("".join(LINES[k::3]) * 2)
        assert own(tmp_path, tmp_path) == {
            split: "".join(LINES[k::3]) * 2 for k, split in enumerate(("train", "valid", "test"))
        }
        (tmp_path / "train.txt").unlink()
        with pytest.raises(DataError, match=r"but no train\.txt"):
            own(tmp_path, tmp_path)

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            (b"", "0 bytes of text for 'train', at least 1000 are needed"),
            (b"x" * 999, "999 bytes of text"),
            (b"a line\n" * 500 + b"caf\xe9\n", "line 501: byte 3503 is not UTF-8"),
            (b"a line\n" * 50_000 + b"caf\xe9\n", "line 50001: byte 350003 is not UTF-8"),
            ("x\n".encode("utf-16-le") * 600, "zero bytes between the characters"),
            (b"\xff\xfe" + b"x\0\n\0" * 600 + b"x", "is not UTF-16, as its byte order mark says"),
        ],
    )
    def test_broken_files_are_one_line(self, tmp_path, contents, message):
        path = tmp_path / "book.txt"
        path.write_bytes(contents)
        with pytest.raises(DataError) as error:
            own(path, tmp_path)
        assert str(path) in str(error.value)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_folder_without_text(self, tmp_path):
        with pytest.raises(DataError, match=r"has no \.txt files"):
            own(tmp_path, tmp_path / "elsewhere")

    def test_pieces_of_any_file(self, tmp_path):
        """Every mutation is read as Python reads it, or refused in one line."""
        path = tmp_path / "book.txt"

        def read(path):
            return path.read_bytes(), list(plain_files.read_pieces(path, 50))

        for contents, pieces in outcomes(path, read, "".join(LINES).encode()):
            encoding = "utf-16" if contents[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            expected = contents.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
            expected = expected.removesuffix("\n") + "\n" if expected else ""
            assert "".join(pieces) == expected
            assert all(piece.endswith("\n") for piece in pieces)

    def test_keys_are_spread_over_the_buckets_of_tfds(self, tmp_path):
        (tmp_path / "book.txt").write_text("".join(LINES))
        builder = plain_files.PlainFiles(tmp_path, data_dir=tmp_path / "prepared")
        for examples in builder.generators(None).values():
            keys = [key for key, _ in examples]
            found = [shuffle.get_bucket_number(k, num_buckets=shuffle.BUCKETS_NUMBER) for k in keys]
            assert found == sorted(set(found))

    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        """One line of 20 MB, and 20 MB of lines: the pieces stay small."""
        for name, part in (("line.txt", b"word " * 1000), ("lines.txt", b"word\n" * 1000)):
            path = tmp_path / name
            with path.open("wb") as file:
                for _ in range(4000):
                    file.write(part)
            lengths = [len(piece) for piece in plain_files.read_pieces(path)]
            assert sum(lengths) in (20_000_000, 20_000_001)
            assert max(lengths) < 1_200_000
