"""The page of `demo`: what it shows, by its API, for a model that is not trained."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from gradio_client import Client, handle_file

from unroll.apps.core import page
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Page, Trained
from unroll.pipelines.errors import DataError

pytestmark = pytest.mark.filterwarnings(
    # Gradio leaves sockets and event loops open.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*no_silent_downcasting:DeprecationWarning",
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
    entries = [
        stub("plain"),
        stub("parts", page=lambda trained: Page(outputs=outputs)),
        stub("file", page=lambda trained: file),
        stub(
            "stream",
            page=lambda trained: Page({"text": "text"}, is_streamed=True, listen=listen),
            stream=lambda trained, text: iter(text),
        ),
        stub(
            "dialog",
            page=lambda t: Page({"turn": "line"}, {"reply": ("text", lambda r: r["reply"])}),
            converse=converse,
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
    expected = {"/plain", "/parts", "/file", "/stream", "/stream_listen", "/dialog"}
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


def test_dialogs_are_of_one_visitor(address, client):
    other = Client(address, verbose=False)
    client.predict("mine", [], api_name="/dialog")
    _, chat, result = other.predict("theirs", [], api_name="/dialog")
    assert result == {"reply": "theirs"}
    assert [turn["role"] for turn in chat] == ["user", "assistant"]
    _, _, result = client.predict("again", [], api_name="/dialog")
    assert result == {"reply": "mine again"}


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
