"""The page of `apps/core/examples/browser`: exported models in Chromium answer like Python."""

import functools
import importlib
import itertools
import json
import re
import shutil
import subprocess
import threading
import unicodedata
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
from playwright.sync_api import Page, expect

from tests.apps import browser
from tests.apps.test_contract_models import small_config
from tests.apps.written_runs import write_run
from unroll.apps.core import export
from unroll.apps.core.protocol import Trained
from unroll.pipelines import tagging
from unroll.pipelines import text as texts

FOLDER = Path(export.__file__).parent / "examples" / "browser"
# The shape of the LiteRT file of each app.
SHAPES = {"sentiment": "1x50", "slot_filling": "1x50x20"}
TEXTS = [
    "It wasn't bad: 10/10, and I'd go again!",
    "Flights from Zürich to St. Louis, 7 p.m. on the 12th.",
    "Don\u2019t 'quote' me<br />'tis -LRB- so -RRB- rock'n'roll ( 1,000 ) [\"odd\"]; etc...",
    "",
    " \t\r\n ",
    ".",
    "...",
    "\0nul\0byte \x1b[31m\x7f\x85",
    "😀❤\ufe0f👨\u200d👩\u200d👧 👍🏽 🇨🇭 ok",
    "cafe\u0301 Z\u0351\u036b\u0343\u036aa\u0304\u0301lgo \u0301 \ufb01ne ＡＢ１２ ㎏ ½ ² Ⅷ",
    "مرحبا بالعالم \u202eabc\u202c שלום\u200f עולם ١٢٣",
    "我是学生。これはペン ABC 한국어 \u1112\u1161\u11ab",
    "हिन्दी में १२३ ไทย \u0e33",
    # Look-alikes: Cyrillic, Greek, Cherokee, mathematical letters.
    "раураl Αthens ᎪᏢᏢ ꭺꮲꮲ 𝐛𝐨𝐥𝐝 𝔾𝕠𝕠𝕕 ℌ",
    # Letters whose case is special.
    "STRASSE Straße ẞ İstanbul ısı ΣΊΣΥΦΟΣ Σίσυφος ŉ ǰ ΐ ᾳ ſ K \u0345",
    "soft\u00adhyphen zero\u200bwidth bom\ufeff\u2060 \u3164 \u034f \U000e0041",
    "\ud83d lone \udc00 surrogates \ufffe \uffff \U0010ffff \ue000",
    "\u00a0no\u2003break\u3000space\u2028line\u1680\u202f",
    "x" * 10_000,
    "ab 12. " * 1429,
]


def python_text(text: str) -> str:
    """A text of JavaScript as Python sends it to a model: without lone surrogates."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def run_node(texts_: list[str]) -> list[dict]:
    """What `text.js` makes of texts, in Node.js, which has no page."""
    if not shutil.which("node"):
        pytest.skip("Node.js is not installed")
    script = f"""
    import {{ readFileSync }} from "node:fs";
    import {{ foldWord, splitWords, tokenize }} from {json.dumps((FOLDER / "text.js").as_uri())};
    const found = JSON.parse(readFileSync(0)).map((text) => {{
        const words = splitWords(text).map((each) => ({{ ...each, folded: foldWord(each.word) }}));
        return {{ tokens: tokenize(text), words }};
    }});
    console.log(JSON.stringify(found));"""
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        input=json.dumps(texts_),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return json.loads(done.stdout)


def python_results(given: list[str]) -> list[dict]:
    """As `run_node`, by the functions that training and exports use."""
    tokens = texts.tokenize(tf.constant(given)).to_list()
    words, begins, ends = tagging.split_words(tf.constant(given))
    folded = words.with_values(tagging.normalize_words(words.values)).to_list()
    columns = (tokens, words.to_list(), begins.to_list(), ends.to_list(), folded)
    results = []
    for text, found, *of_words in zip(given, *columns, strict=True):
        # Positions in JavaScript count the units of UTF-16.
        units = [0, *itertools.accumulate(1 + (c > "\uffff") for c in text)]
        results.append(
            {
                "tokens": [token.decode() for token in found],
                "words": [
                    {
                        "word": word.decode(),
                        "begin": units[begin],
                        "end": units[end],
                        "folded": fold.decode(),
                    }
                    for word, begin, end, fold in zip(*of_words, strict=True)
                ],
            }
        )
    return results


def test_texts_are_split_like_in_python():
    assert run_node(TEXTS) == python_results([python_text(text) for text in TEXTS])


@pytest.mark.exhaustive
def test_every_character_is_read_like_in_python():
    """Those of Python's version of Unicode, which is older than the browsers'."""
    characters = [
        c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cs", "Cn")
    ]
    assert len(characters) > 280_000
    given = [f"{c} a{c}b {c}n't {c}'s{c} {c}." for c in characters]
    found, expected = run_node(given), python_results(given)
    different = [
        f"U+{ord(c):04X}"
        for c, one, other in zip(characters, found, expected, strict=True)
        if one != other
    ]
    assert different == []


def install(folder: Path) -> Path:
    """A copy of the page with its packages."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules", "model"))
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    command = ["npm", "install", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if re.search("EAI_AGAIN|ENOTFOUND|ECONN|ETIMEDOUT", done.stderr):
        pytest.skip("npm cannot reach the package registry")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


class Handler(SimpleHTTPRequestHandler):
    """That of `python -m http.server`, without its log."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The folder of the page and its address."""
    if not browser.CHROMIUM:
        pytest.skip("Chromium is not installed: apt-get install it")
    folder = install(tmp_path_factory.mktemp("site") / "page")
    handler = functools.partial(Handler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(folder=folder, address=f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


@pytest.fixture(scope="module")
def chromium(site) -> Iterator[browser.Browser]:
    with browser.chromium() as opened:
        yield opened


@pytest.fixture(scope="module", params=SHAPES)
def exported(request, parity_process, tmp_path_factory) -> Path:
    """An export of a model with random weights, large ones so that answers differ."""
    app = importlib.import_module(f"unroll.apps.{request.param}.app")
    config = small_config(app)
    assets = app.load(config, ()).assets
    model = app.build(config, assets)
    model.set_weights([3 * weight for weight in model.get_weights()])
    folder = tmp_path_factory.mktemp("exported")
    run = write_run(folder / "run", app, Trained(config, assets, model))
    shape = SHAPES[request.param]
    return export.export(
        app, run, folder / "to", export.FORMATS, litert_shapes=shape, litert_loops=True
    )


@pytest.fixture
def visitor(site, exported, chromium) -> Iterator[browser.Visit]:
    """A window for the page, whose folder has the export."""
    shutil.rmtree(site.folder / "model", ignore_errors=True)
    shutil.copytree(exported, site.folder / "model")
    visitor = browser.visit(chromium, width=1000)
    yield visitor
    assert visitor.hosts == {"127.0.0.1"}
    assert visitor.problems == []
    visitor.window.context.close()


# The answers of a runtime to texts, or the messages of its errors.
ANSWERS = """async ([load, texts]) => {
    const model = await import("./model.js");
    const exported = await model.loadExport(new URL("model/", document.baseURI));
    const loaded = await model[load](exported);
    const answers = [];
    for (const text of texts) {
        answers.push(await model.answer(exported, loaded, text).catch((error) => error.message));
    }
    return answers;
}"""


def expected_answers(folder: Path) -> list[tuple[list, dict, list]]:
    """The tokens, the probabilities of the classes and the spans of each text by the SavedModel."""
    model = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answers = []
    for text in map(python_text, TEXTS):
        found = {name: x[0].numpy() for name, x in model(text=tf.constant([text])).items()}
        tokens = [token.decode() for token in found["tokens"] if token]
        if "probabilities" in found:
            labels = (folder / "labels.txt").read_text().splitlines()
            classes = dict(zip(labels, found["probabilities"].tolist(), strict=True))
        else:
            classes = {found["intent"].decode(): found["intent_score"].item()}
        ends = zip(found.get("spans", []), found.get("span_labels", []), strict=True)
        spans = [[text[begin:end], label.decode()] for (begin, end), label in ends if label]
        answers.append((tokens, classes, spans))
    return answers


@pytest.mark.exhaustive
@pytest.mark.parametrize("load", ["loadOnnxModel", "loadLiteRtModel"])
def test_both_runtimes_answer_like_the_saved_model(load, visitor, site, exported):
    visitor.open(site.address)
    answers = visitor.window.evaluate(ANSWERS, [load, TEXTS])
    labels = set()
    for expected, answer in zip(expected_answers(exported), answers, strict=True):
        tokens, classes, spans = expected
        if load == "loadLiteRtModel" and len(tokens) > 50:
            file = f"model-{SHAPES[exported.parent.name]}.tflite"
            assert answer == f"The text has {len(tokens)} tokens, but {file} takes at most 50."
            continue
        assert answer["tokens"] == tokens
        assert dict(answer["classes"]) == pytest.approx(classes, abs=1e-4)
        assert answer["classes"][0][0] == max(classes, key=classes.get)
        marked = [[each["text"], each["label"]] for each in answer["parts"] if "label" in each]
        assert marked == spans
        assert answer["milliseconds"] > 0
        labels |= {answer["classes"][0][0], *(label for _, label in spans)}
    assert len(labels) > 1


def panel(window: Page, title: str):
    return window.locator("section").filter(has_text=title)


@pytest.mark.exhaustive
def test_the_page_shows_the_answers_of_both_runtimes_and_their_times(visitor, site, tmp_path):
    body = visitor.open(site.address)
    expect(body.locator(".time")).to_have_count(2, timeout=browser.TIMEOUT)
    text = "A good trip to Chicago"
    body.locator("textarea").fill(text)
    body.get_by_role("button", name="Run").click()
    for title in ("ONNX Runtime Web: ids.onnx", "LiteRT.js: model-1x50"):
        found = panel(visitor.window, title)
        expect(found.locator("p.text")).to_contain_text(re.compile("chicago", re.IGNORECASE))
        expect(found.locator("meter").first).to_be_visible()
        expect(found.locator(".time")).to_have_text(re.compile(r"^[0-9.]+ ms$"))
    body.get_by_role("button", name="Measure").click()
    for found in body.locator(".time").all():
        expect(found).to_have_text(re.compile(r"^Median of 50 runs: [0-9.]+ ms$"))
    visitor.window.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 5000


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"app": "vqa"}, "This is an export of vqa, but the page runs sentiment and slot_filling."),
        (
            {"onnx": {"ids": {"inputs": {"tokens": {}, "trigrams": {}}}}},
            "The model needs trigrams, which the page does not compute.",
        ),
        ({"onnx": None}, "The export has no ONNX model: export with --formats=litert,onnx."),
        (
            {"bytes": {}},
            "The export has no LiteRT model of fixed shapes: "
            "add --litert-shapes=1x50 --litert-loops.",
        ),
        (None, "/model/manifest.json cannot be loaded: 404."),
    ],
)
def test_an_export_that_does_not_fit_is_a_message(change, message, visitor, site):
    manifest = site.folder / "model" / "manifest.json"
    if change:
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    else:
        manifest.unlink()
    body = visitor.open(site.address)
    expect(body.locator(".error")).to_have_text(message, timeout=browser.TIMEOUT)
