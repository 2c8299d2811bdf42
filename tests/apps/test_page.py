"""The page of `demo`: what it shows, by its API, for a model that is not trained."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from gradio_client import Client, handle_file

from tests.apps import toy
from tests.apps.written_runs import write_run
from unroll.apps.core import cli, page
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Page, Trained
from unroll.pipelines.errors import DataError

pytestmark = pytest.mark.filterwarnings(
    # Gradio leaves sockets and event loops open.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*no_silent_downcasting:DeprecationWarning",
    "ignore:The copy keyword is deprecated",
)


def predict(trained, inputs: list) -> list[dict]:
    """Counts the words of a text; a file is named by its content."""
    found = []
    for each in inputs:
        if isinstance(each, tuple):
            path, question = each
            found.append({"answer": f"{Path(path).read_text()}: {question}"})
            continue
        if each == "bad":
            raise DataError("the text <bad>\n is not allowed.")
        found.append({"text": each, "count": len(each.split())})
    return found


def converse(trained):
    """A function that remembers the lines."""
    lines = []

    def answer(line: str) -> dict:
        lines.append(line)
        return {"reply": " ".join(lines)}

    return answer


def converse_about_files(trained):
    """A function that remembers the lines about each file."""
    answer = converse(trained)
    return lambda raw: answer(f"{Path(raw[0]).read_text()}: {raw[1]}") | {"file": raw[0]}


def stub(name: str, **hooks) -> page.Entry:
    """A model on a page."""
    app = SimpleNamespace(
        __name__=f"unroll.apps.{name}.app",
        predict=predict,
        show=lambda result: f"{result['count']} words",
        examples=lambda: ["some words"],
        **hooks,
    )
    return page.Entry(app, Trained(None, {}, None), f"**{name}**")


def weights(result: dict) -> list[tuple[str, float]]:
    """The share of each word."""
    return [(word, k / 4) for k, word in enumerate(result["text"].split())]


def listen():
    """A function that counts samples."""
    count = 0

    def hear(samples, rate) -> str:
        nonlocal count
        count += len(samples)
        return f"{count}@{rate} "

    return hear


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page with models of all kinds."""
    outputs = {
        "weights": ("weights", weights),
        "rows": ("table", lambda result: (["word"], [[w] for w in result["text"].split()])),
    }
    file = Page(
        {"picture": "image", "question": "line"},
        {"answer": ("text", lambda result: result["answer"])},
        example=lambda text: (b"picture", text),
    )
    dialog_outputs = {
        "reply": ("text", lambda result: result["reply"]),
        "name": ("text", lambda result: Path(result["file"]).name),
    }
    entries = [
        stub("plain"),
        stub("parts", page=lambda trained: Page(outputs=outputs)),
        stub("file", page=lambda trained: file),
        stub(
            "stream",
            page=lambda trained: Page({"text": "text"}, is_streamed=True),
            stream=lambda trained, text: iter(text),
        ),
        stub(
            "dialog",
            page=lambda t: Page({"turn": "line"}, {"reply": ("text", lambda r: r["reply"])}),
            converse=converse,
        ),
        stub(
            "dialog_about_files",
            page=lambda trained: Page(file.inputs, dialog_outputs, example=file.example),
            converse=converse_about_files,
        ),
    ]
    with page.serve(entries) as address:
        yield address


@pytest.fixture(scope="module")
def client(address) -> Client:
    return Client(address, verbose=False)


def test_a_page_is_local_and_has_a_function_for_each_app(address, client):
    assert address.startswith("http://127.0.0.1:")
    functions = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    expected = {"/plain", "/parts", "/file", "/stream", "/dialog", "/dialog_about_files"}
    assert set(functions) == expected


def test_by_default_a_text_gives_what_show_returns_and_json(client):
    text, result = client.predict("one two three", api_name="/plain")
    assert text == "3 words"
    assert result == {"text": "one two three", "count": 3}


def test_the_parts_of_a_result_are_shown(client):
    found, table, result = client.predict("a b c", api_name="/parts")
    shown = [(each["token"], each["class_or_confidence"]) for each in found]
    assert shown == [("a", 0.0), ("b", 0.5), ("c", 1.0)]  # relative to the largest
    assert (table["headers"], table["data"]) == (["word"], [["a"], ["b"], ["c"]])
    assert result["count"] == 3


def test_a_file_is_uploaded(client, tmp_path):
    path = tmp_path / "broken.png"  # the app, not Gradio, says what is wrong with a file
    path.write_text("broken")
    answer, _ = client.predict(handle_file(str(path)), "why?", api_name="/file")
    assert answer == "broken: why?"


def test_a_text_is_shown_as_it_grows(client):
    job = client.submit("abc", api_name="/stream")
    assert job.result() == "abc"
    assert job.outputs() == ["a", "ab", "abc"]


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("plain", ["bad"], "the text &lt;bad&gt; is not allowed."),
        ("plain", ["x" * 20_001], "text has 20,001 characters; at most 20,000 are allowed."),
        ("file", [None, "why?"], "picture is missing: add a file, or choose an example."),
    ],
)
def test_bad_input_is_one_clear_message(client, function, arguments, message):
    with pytest.raises(Exception, match=r".") as caught:
        client.predict(*arguments, api_name=f"/{function}")
    assert str(caught.value) == message


def test_a_path_that_was_not_uploaded_is_refused(address):
    url = f"{address}gradio_api/call/file"
    file = {"path": __file__, "meta": {"_type": "gradio.FileData"}}
    event = requests.post(url, json={"data": [file, "why?"]}, timeout=60).json()["event_id"]
    answer = requests.get(f"{url}/{event}", timeout=60).text
    assert answer.startswith("event: error")
    assert "def test" not in answer


def test_the_pieces_of_a_microphone_extend_a_transcript(tmp_path):
    hooks = {"page": lambda trained: Page({"sound": "audio"}, is_streamed=True, listen=listen)}
    tab = page._Tab(page.import_gradio(), stub("speech", **hooks), tmp_path)
    piece = (48_000, np.zeros([100, 2], "int16"))
    state, text = tab.hear(piece, None, "")
    assert tab.hear(None, state, text) == (state, "100@48000 ")
    state, text = tab.hear(piece, state, text)
    assert text == "100@48000 200@48000 "
    _, other = tab.hear(piece, None, None)
    assert other == "100@48000 "


def test_dialogs_are_of_one_visitor(address, client):
    other = Client(address, verbose=False)
    client.predict("mine", [], api_name="/dialog")
    _, chat, result = other.predict("theirs", [], api_name="/dialog")
    assert result == {"reply": "theirs"}
    assert [turn["role"] for turn in chat] == ["user", "assistant"]
    _, _, result = client.predict("again", [], api_name="/dialog")
    assert result == {"reply": "mine again"}


def test_a_dialog_about_a_file_shows_the_parts_of_a_result(client, tmp_path):
    path = tmp_path / "photo.png"
    path.write_text("photo")
    arguments = {"api_name": "/dialog_about_files"}
    _, chat, name, _ = client.predict(handle_file(str(path)), "why?", [], **arguments)
    assert name == "photo.png"
    _, chat, _, result = client.predict(handle_file(str(path)), "and?", chat, **arguments)
    assert [turn["content"][0]["text"] for turn in chat] == [
        *("why?", "photo: why?"),
        *("and?", "photo: why? photo: and?"),
    ]
    assert result["reply"] == "photo: why? photo: and?"


def test_a_large_file_is_refused(client, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(b"x" * 21_000_000)
    with pytest.raises(Exception, match=r"413|size|large"):
        client.predict(handle_file(str(path)), "why?", api_name="/file")


def test_a_taken_port_is_named(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(UsageError, match=f"--port={port}: .*port"), page.serve([stub("a")], port):
        pass


def test_without_gradio_one_line_says_what_to_install(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, err = call("demo")
    assert (code, out) == (2, [])
    assert err == ["unroll: demo needs the package gradio: pip install 'unroll-keras[demo]'."]
    code, _, err = call("toy", "demo", "no_run")
    assert (code, err) == (
        2,
        ["unroll: demo needs the package gradio: pip install 'unroll-keras[demo]'."],
    )


@pytest.fixture
def shown(monkeypatch, toy_among_the_apps) -> list[page.Entry]:
    """The models that `unroll demo` puts on its page, of which no app but the toy is there."""
    found = []
    monkeypatch.setattr(cli, "describe", lambda: {"toy": "A line about it."})
    monkeypatch.setattr(cli, "_serve", lambda entries, chosen: found.extend(entries) or 0)
    return found


def test_the_newest_run_of_each_app_is_shown(shown, call):
    config = toy.Config(units=3)
    assets = toy.load(config, ()).assets
    trained = Trained(config, assets, toy.build(config, assets))
    parent = Path("runs/toy")
    parent.mkdir(parents=True)
    runs = [write_run(parent / name, toy, trained) for name in ("new", "old", "broken")]
    runs[0].write_metrics("test", {"examples": 10, "accuracy": 0.75, "errors": 2})
    (parent / "broken" / "config.json").write_text('{"app": "toy", "format": 1}')
    for age, run in enumerate((runs[2], *runs[:2])):
        os.utime(run.best, (1e9 - age, 1e9 - age))
    code, _, err = call("demo")
    assert code == 0
    assert err == [
        "unroll: runs/toy/broken is a run of format 1, and this version of Unroll reads format 3: "
        "train it again.",
        "unroll: toy: runs/toy/new",
    ]
    [entry] = shown
    assert entry.description.split("  \n") == [
        "**A line about it.**",
        "Trained on digits (`runs/toy/new`).",
        "Test split: accuracy 0.75, errors 2.",
    ]


@pytest.mark.exhaustive
def test_an_app_without_a_run_is_trained(shown, call):
    code, _, err = call("demo")
    assert code == 0
    assert "unroll: there is no run in runs/toy: a small one is trained, on 25% of the" in err[0]
    assert [entry.trained.config.generated_size for entry in shown] == [cli.SMALL]
    assert call("demo")[2][0] == "unroll: toy: runs/toy/digits-1"


def test_the_options_of_a_page_are_checked(call):
    code, _, [message] = call("demo", "--prot=1")
    assert code == 2
    assert "did you mean --port?" in message
