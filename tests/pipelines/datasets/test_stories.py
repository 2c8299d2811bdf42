"""Datasets of stories: bAbI, your own files, the generated ones."""

import hashlib
import io
import re
import tarfile

import pytest

from unroll.pipelines import datasets
from unroll.pipelines.datasets.stories import stories
from unroll.pipelines.datasets.stories.babi import TASKS, hold_out
from unroll.pipelines.datasets.stories.base import read_stories
from unroll.pipelines.errors import DataError

STORY = "1 Mary is here.\n2 Bob left.\n3 Where is Mary?\there\t1\n4 Bob is back.\n"
STORY += "5 Where is Bob? \there,there\t4 2\n1 Ann left.\n2 Is Ann here?\tno\n"


def babi(folder, tasks=TASKS, language="en"):
    """An archive with the layout of bAbI, with ten training stories and two test stories a task."""
    path = folder / "babi" / "tasks_1-20_v1-2.tar.gz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for task in tasks:
            for split, count in (("train", 10), ("test", 2)):
                text = "".join(f"1 Fact {k}.\n2 {split}?\t{task}\t1\n" for k in range(count))
                name = f"tasks_1-20_v1-2/{language}/qa{task}_any-name_{split}.txt"
                info = tarfile.TarInfo(name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
    return {"manual_dir": folder, "data_dir": folder / "prepared"}


def rows(name, split, **folders):
    return list(datasets.load(name, split, **folders).as_numpy_iterator())


class TestLayout:
    def test_each_question_has_the_facts_before_it(self):
        first, second, third = read_stories(STORY.encode(), "x", "7")
        assert first["facts"] == ["Mary is here.", "Bob left."]
        assert first["supporting"] == [0]
        assert second["facts"] == ["Mary is here.", "Bob left.", "Bob is back."]
        assert (second["answer"], second["supporting"]) == ("here,there", [2, 1])
        assert third == {
            "task": "7",
            "facts": ["Ann left."],
            "question": "Is Ann here?",
            "answer": "no",
            "supporting": [],
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("Mary is here.", "line 1: expected a number, a space and a sentence, got 'Mary"),
            ("1\n", "line 1: expected a number, a space and a sentence, got '1'"),
            ("1 A.\n3 B.\n", "line 2: expected the number 2 or 1, got 3"),
            ("1 A.\n2 Where?\n", "line 2: the question has no answer"),
            ("1 A.\n2 Where?\t\t1\n", "line 2: the question has no answer"),
            ("1 A.\n2 Where?\there\t3\n", "line 2: no fact of the story has the number 3"),
            ("1 Q?\ta\n2 Where?\there\t1\n", "line 2: no fact of the story has the number 1"),
            ("1 A.\n2 Where?\there\tone\n", "line 2: no fact of the story has the number one"),
            ("1 A.\n2 Where?\ta\t1\tb\n", "line 2: expected a question, an answer and lines"),
        ],
    )
    def test_error_names_the_line(self, text, message):
        with pytest.raises(DataError, match=re.escape(f"x.txt, {message}")):
            list(read_stories(text.encode(), "x.txt"))

    def test_other_encodings(self):
        [row] = read_stories("1 Zoë.\n2 Q?\ta\n".encode("utf-8-sig"), "x.txt")
        assert row["facts"] == ["Zoë."]
        with pytest.raises(DataError, match=r"x\.txt is not UTF-8"):
            list(read_stories("1 Zoë.\n".encode("latin-1"), "x.txt"))

    def test_a_story_is_in_one_split(self):
        each = "".join(f"{k} Fact.\n{k + 1} Q?\ta\t{k}\n" for k in range(1, 13, 2))  # six questions
        questions = list(read_stories((each * 5).encode(), "x"))
        train, valid = hold_out(questions)
        assert (len(train), len(valid)) == (24, 6)
        assert valid == questions[24:]


class TestBabi:
    def test_all_tasks(self, tmp_path):
        folders = babi(tmp_path)
        counts = {s: len(rows("babi", s, **folders)) for s in ("train", "valid", "test")}
        assert counts == {"train": 180, "valid": 20, "test": 40}
        assert {row["task"].decode() for row in rows("babi", "valid", **folders)} == {
            str(task) for task in TASKS
        }

    def test_missing_task(self, tmp_path, capsys):
        folders = babi(tmp_path, tasks=[1, 2, *range(4, 21)], language="en-10k")
        assert len(rows("babi_10k", "test", **folders)) == 38
        message = capsys.readouterr().err
        assert "1 of 20 tasks of" in message
        assert "(en-10k) are skipped: 3 (no training file or no test file)" in message

    def test_archive_of_another_language(self, tmp_path):
        folders = babi(tmp_path, language="hn")
        with pytest.raises(DataError, match="20 of 20 tasks of"):
            datasets.load("babi", "test", **folders)

    def test_published_files(self, manual_dir):
        files = {}
        with tarfile.open(manual_dir / "babi" / "tasks_1-20_v1-2.tar.gz") as archive:
            for member in archive:
                if "/en/" in member.name and member.isfile():
                    text = archive.extractfile(member).read()
                    files[member.name] = list(read_stories(text, member.name))
        assert [len(questions) for questions in files.values()] == [1000] * 40
        train = [questions for name, questions in files.items() if "train" in name]
        assert {len(hold_out(questions)[1]) for questions in train} <= set(range(100, 105))
        assert max(len(row["facts"]) for questions in train for row in questions) == 224


def load(folder, tmp_path):
    return datasets.builder(str(folder), kind="stories", data_dir=tmp_path / "prepared")


class TestOwnFiles:
    def test_one_task(self, tmp_path):
        (tmp_path / "train.txt").write_text(STORY)
        (tmp_path / "test.txt").write_text(STORY)
        made = load(tmp_path, tmp_path)
        assert [len(datasets.read(made, split)) for split in ("train", "test")] == [3, 3]

    def test_several_tasks(self, tmp_path):
        for name in ("qa1_a_train.txt", "qa12_b_train.txt", "qa1_a_valid.txt"):
            (tmp_path / name).write_text(STORY)
        questions = datasets.read(load(tmp_path, tmp_path), "train").as_numpy_iterator()
        assert sorted(row["task"] for row in questions) == [b"1"] * 3 + [b"12"] * 3

    def test_wrong_folders(self, tmp_path):
        with pytest.raises(DataError, match=r"no training data: train.txt, or qa1_"):
            load(tmp_path, tmp_path)
        (tmp_path / "train.txt").write_text("\n")
        with pytest.raises(DataError, match=r"train.txt has no questions"):
            load(tmp_path, tmp_path)
        (tmp_path / "train.txt").write_text("1 A.\n2 Where?\there\t3\n")
        with pytest.raises(DataError, match=r"train.txt, line 2: no fact of the story"):
            load(tmp_path, tmp_path)
        (tmp_path / "qa1_a_train.txt").write_text(STORY)
        (tmp_path / "train.txt").write_text(STORY)
        with pytest.raises(DataError, match=r"train\.txt and files of tasks"):
            load(tmp_path, tmp_path)


@pytest.fixture(scope="module")
def generated():
    """A tenth of the training split, and a fifth of the others."""
    numbers = {"train": 100, "valid": 20, "test": 100}
    return {split: list(stories.generate(split, number)) for split, number in numbers.items()}


class TestStories:
    def test_kinds_and_lengths(self, generated):
        tasks = [row["task"] for row in generated["valid"]]
        assert tasks == [kind for kind in stories.KINDS for _ in range(20)]
        longest = {s: max(len(row["facts"]) for row in generated[s]) for s in ("train", "test")}
        assert longest["train"] <= 13 < longest["test"] <= 24

    def test_deterministic(self, generated):
        assert list(stories.generate("valid", 20)) == generated["valid"]
        assert next(stories.generate("valid", 1)) == generated["valid"][0]

    def test_version_changes_with_the_stories(self, generated):
        """If this fails, stories have changed: increase `VERSION`, or prepared ones are read."""
        digest = hashlib.sha256(repr(generated).encode()).hexdigest()[:12]
        assert (str(stories.Stories.VERSION), digest) == ("1.0.0", "205b1bc0855d")

    def test_test_questions_do_not_occur_in_training(self, generated):
        train = {(*row["facts"], row["question"]) for row in generated["train"]}
        assert not train & {(*row["facts"], row["question"]) for row in generated["test"]}

    def test_supporting_facts_give_the_answer(self, generated):
        """A reader by rules sees only the supporting facts."""
        for row in generated["test"]:
            facts = [row["facts"][k] for k in row["supporting"]]
            assert answer(row["task"], facts, row["question"]) == row["answer"], row

    def test_most_frequent_answer(self, generated):
        for kind in stories.KINDS:
            answers = [row["answer"] for row in generated["train"] if row["task"] == kind]
            assert max(answers.count(each) for each in answers) / len(answers) < 0.6


def answer(kind: str, facts: list[str], question: str) -> str:
    words = question.rstrip("?").split()
    last = [fact.rstrip(".").split()[-1] for fact in facts]
    if kind == "1":
        return last[-1]
    if kind == "6":
        return "yes" if last[-1] == words[-1] else "no"
    if kind == "2":
        return [fact for fact in facts if " to the " in fact][-1].rstrip(".").split()[-1]
    if kind == "3":
        rooms = [fact.rstrip(".").split()[-1] for fact in facts if " to the " in fact]
        return rooms[rooms.index(words[-1]) - 1]
    if kind == "7":
        taken = sum(any(f" {verb} " in fact for verb in stories.TAKE) for fact in facts)
        return stories.NUMBERS[taken - (len(facts) - taken)]
    if kind == "15":
        feared = next(fact for fact in facts if "afraid" in fact).rstrip(".").split()[-1]
        return next(one for one, several in stories.ANIMALS.items() if several == feared)
    if kind == "16":
        return next(word for word in last if word in stories.COLORS)
    bigger = {}
    for fact in facts:
        a, b = (word for word in fact.rstrip(".").split() if word in stories.BOXES)
        bigger.update({a: b} if "bigger" in fact else {b: a})
    box, other = (word for word in words if word in stories.BOXES)
    while box in bigger and box != other:
        box = bigger[box]
    return "no" if box == other else "yes"
