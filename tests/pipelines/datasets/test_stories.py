"""Datasets of stories: bAbI, your own files, the generated ones."""

import hashlib
import io
import re
import tarfile
from collections import Counter

import pytest

from tests.pipelines.datasets.helpers import read_all
from tests.pipelines.mutations import outcomes
from unroll.pipelines import datasets
from unroll.pipelines.datasets.stories import stories
from unroll.pipelines.datasets.stories.babi import TASKS, hold_out
from unroll.pipelines.datasets.stories.base import read_stories, used_stories
from unroll.pipelines.datasets.stories.story_files import StoryFiles
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import read_text

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


def read(text: str, name: str = "x.txt", task: str = "") -> list[dict]:
    return [row for story in read_stories(text, name, task) for row in story.questions]


class TestLayout:
    def test_each_question_has_the_facts_before_it(self):
        first, second, third = read(STORY, task="7")
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
            (f"1 A.\n{'9' * 5000} B.\n", "line 2: expected a number, a space and a sentence, got"),
            ("1 A.\n3 B.\n", "line 2: expected the number 2 or 1, got 3"),
            ("1 A.\n2 B.\n2 C.\n", "line 3: expected the number 3 or 1, got 2"),
            ("2 A.\n", "line 1: expected the number 1, got 2"),
            ("1 A.\n2 Where?\n", "line 2: the question has no answer"),
            ("1 A.\n2 Where?\t\t1\n", "line 2: the question has no answer"),
            ("1 A.\n2 Where?\there\t3\n", "line 2: no fact before the question has the number 3"),
            ("1 A.\n2 Where?\there\t2\n", "line 2: no fact before the question has the number 2"),
            ("1 A.\n2 Q?\ta\n3 Q?\tb\t2\n", "line 3: no fact before the question has the number 2"),
            ("1 A.\n2 Where?\there\t-1\n", "line 2: no fact before the question has the number -1"),
            (
                "1 A.\n2 Where?\there\tone\n",
                "line 2: no fact before the question has the number one",
            ),
            (
                "1 A.\n2 Where?\there\t1,1\n",
                "line 2: no fact before the question has the number 1,1",
            ),
            ("1 Q?\ta\n2 A.\n", "line 1: the question is before the first fact of its story"),
            ("1 A.\n2 Where?\ta\t1\tb\n", "line 2: expected a question, an answer and lines"),
            ("1 A.\r2 Where?   here   1\r", "line 2: a tab separates a question and its answer"),
            ("1 A.\r\n2 Where? here\r\n", "line 2: a tab separates a question and its answer"),
            ("1 Ann went\tto the hall.\n", "line 1: a fact has no tab, and a question ends with"),
        ],
    )
    def test_error_names_the_line(self, text, message):
        with pytest.raises(DataError, match=re.escape(f"x.txt, {message}")):
            read(text)

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", " \n"])
    @pytest.mark.parametrize("space", [" ", "\t", "   ", "\u00a0"])
    def test_line_ends_and_spaces(self, end, space):
        text = f"1{space}He asked: who?\u2028Me\x0b.{end}02{space}Q? \t a \t 1 {end}"
        [row] = read(text)
        assert row["facts"] == ["He asked: who?\u2028Me\x0b."]
        assert (row["question"], row["answer"], row["supporting"]) == ("Q?", "a", [0])

    def test_what_is_not_used_is_reported(self, capsys):
        text = "1 A.\n1 B.\n1 C.\n2 Q?\ta\n3 D.\n4 E.\n"
        stories = list(read_stories(text, "unused.txt"))
        assert [story.facts for story in stories] == [["A."], ["B."], ["C.", "D.", "E."]]
        assert used_stories(stories, "unused.txt") == used_stories(stories, "unused.txt")
        assert capsys.readouterr().err.splitlines() == [
            "unroll: unused.txt: 2 of 3 stories have no questions and are skipped, such as that of "
            "line 1.",
            "unroll: unused.txt: 2 facts after the last question of their story are not used, such "
            "as in the story of line 3.",
        ]

    def test_a_story_is_in_one_split(self):
        each = "".join(f"{k} Fact.\n{k + 1} Q?\ta\t{k}\n" for k in range(1, 13, 2))  # six questions
        stories = list(read_stories(each * 5, "x"))
        train, valid = hold_out(stories)
        assert (len(train), len(valid)) == (24, 6)
        assert valid == stories[-1].questions

    def test_a_thousand_broken_files(self, tmp_path):
        """Stories or one line; and they have all characters of the file."""

        def letters(text: str) -> Counter:
            return Counter(re.sub(r"[\W\d]", "", text))

        def read(path):
            text = read_text(path)
            return text, list(read_stories(text, str(path)))

        contents = (STORY + "1 Zoë is here.\n2 Bob left.\n3 Where is Zoë?\there\t1\n").encode()
        for text, found in outcomes(tmp_path / "x.txt", read, contents):
            parts = [fact for story in found for fact in story.facts]
            for row in (row for story in found for row in story.questions):
                parts += [row["question"], row["answer"]]
                assert all(0 <= k < len(row["facts"]) for k in row["supporting"])
            assert letters("".join(parts)) == letters(text)


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

    def test_published_files(self, manual_dir, capsys):
        files = {}
        with tarfile.open(manual_dir / "babi" / "tasks_1-20_v1-2.tar.gz") as archive:
            for member in archive:
                if "/en/" in member.name and member.isfile():
                    text = archive.extractfile(member).read()
                    files[member.name] = list(read_stories(text.decode(), member.name))
        for name, own in files.items():
            assert used_stories(own, name) == own
            assert sum(len(story.questions) for story in own) == 1000
        assert capsys.readouterr().err == ""
        train = [own for name, own in files.items() if "train" in name]
        assert {len(hold_out(own)[1]) for own in train} <= set(range(100, 105))
        assert max(len(story.facts) for own in train for story in own) == 224


def questions(count: int) -> str:
    """Stories of two questions each. No two stories have a fact in common."""
    return "".join(
        f"1 Ann{k} is here.\n2 Where is Ann{k}?\there\t1\n"
        f"3 Ann{k} left.\n4 Is Ann{k} here?\tno\t3\n"
        for k in range(count)
    )


class TestOwnFiles:
    def test_one_task(self, tmp_path):
        for split in ("train", "valid", "test"):
            (tmp_path / f"{split}.txt").write_text(STORY)
        found = read_all(StoryFiles, tmp_path / "prepared", folder=tmp_path)
        assert {split: len(rows) for split, rows in found.items()} == {
            "train": 3,
            "valid": 3,
            "test": 3,
        }

    def test_several_tasks(self, tmp_path):
        for name in ("qa1_a_train.txt", "qa12_b_train.txt", "qa1_valid.txt"):
            (tmp_path / name).write_text(STORY)
        found = read_all(StoryFiles, tmp_path / "prepared", folder=tmp_path)
        assert sorted(row["task"] for row in found["train"]) == ["1"] * 3 + ["12"] * 3
        assert [row["task"] for row in found["valid"]] == ["1"] * 3

    @pytest.mark.parametrize("names", [["train.txt"], ["qa1_a_train.txt", "qa2_a_train.txt"]])
    def test_no_story_is_trained_on_and_held_out(self, tmp_path, names, capsys):
        for name in names:
            (tmp_path / name).write_text(questions(50))
        found = read_all(StoryFiles, tmp_path / "prepared", folder=tmp_path)
        people = {
            split: {(row["task"], row["facts"][0]) for row in rows} for split, rows in found.items()
        }
        assert not people["train"] & people["valid"]
        assert sum(map(len, found.values())) == 100 * len(names)
        assert 0.05 <= len(found["valid"]) / (100 * len(names)) <= 0.15
        assert {task for task, _ in people["train"]} == ({""} if len(names) == 1 else {"1", "2"})
        assert f"{len(found['valid'])} of {100 * len(names)} questions are held out" in (
            capsys.readouterr().err
        )
        (tmp_path / names[0]).rename(tmp_path / "other")
        (tmp_path / "other").rename(tmp_path / names[0])
        assert read_all(StoryFiles, tmp_path / "prepared", folder=tmp_path) == found

    def test_a_rare_task_is_not_held_out_as_a_whole(self, tmp_path):
        (tmp_path / "qa1_a_train.txt").write_text(questions(50))
        for task in range(2, 12):
            (tmp_path / f"qa{task}_a_train.txt").write_text(questions(1))
        found = read_all(StoryFiles, tmp_path / "prepared", folder=tmp_path)
        assert {row["task"] for row in found["train"]} == {str(task) for task in range(1, 12)}

    def test_wrong_folders(self, tmp_path, capsys):
        def error() -> str:
            with pytest.raises(DataError) as raised:
                StoryFiles(tmp_path, data_dir=tmp_path / "prepared")
            return str(raised.value)

        assert "no training data: train.txt, or qa1_" in error()
        (tmp_path / "train.txt").write_text("\n")
        assert f"{tmp_path / 'train.txt'} has no questions" in error()
        (tmp_path / "train.txt").write_text("1 A.\n2 Where?\there\t3\n")
        assert "train.txt, line 2: no fact before the question has the number 3" in error()
        (tmp_path / "train.txt").write_bytes(b"1 A.\n2 Wo?\tK\xfcche\t1\n")
        assert "train.txt, line 2: byte 12 is not UTF-8" in error()
        (tmp_path / "train.txt").write_text(questions(2))
        assert "cannot be held out" not in capsys.readouterr().err
        assert "a tenth of 4 questions cannot be held out for one: add valid.txt" in error()
        (tmp_path / "dev.txt").write_text(STORY)
        assert "dev.txt: rename the file to valid.txt" in error()
        (tmp_path / "dev.txt").rename(tmp_path / "qa1_a_test.txt")
        assert "has both train.txt and files of tasks, such as qa1_a_test.txt" in error()
        (tmp_path / "train.txt").rename(tmp_path / "qa1_a_train.txt")
        assert "add qa1_..._valid.txt" in error()
        (tmp_path / "qa1_a_valid.txt").write_text(STORY)
        (tmp_path / "qa1-a-test.txt").write_text(STORY)
        StoryFiles(tmp_path, data_dir=tmp_path / "prepared")
        assert "qa1-a-test.txt is not read: its name is not that" in capsys.readouterr().err


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
