"""The page of `demo` in a browser, for all apps. The models are small and not trained."""

import importlib
import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from playwright.sync_api import expect

from tests.apps import browser
from tests.apps.test_contract_models import NAMES, small_config
from tests.apps.written_runs import write_run
from unroll.apps.core import page
from unroll.apps.core.protocol import Trained

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        not browser.CHROMIUM, reason="Chromium is not installed: apt-get install it"
    ),
    # Gradio leaves sockets and event loops open.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
# A model of speech that can stream.
STREAMS = {"speech_ctc": {"bidirectional": False, "normalization": "running"}}
SECONDS = 3


def entry(name: str, **options) -> page.Entry:
    """A model that is not trained."""
    app = importlib.import_module(f"unroll.apps.{name}.app")
    config = small_config(app, **STREAMS.get(name, {}), **options)
    assets = app.load(config, ()).assets
    return page.Entry(app, Trained(config, assets, app.build(config, assets)), f"**{name}**")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page with a tab for each app."""
    with page.serve([entry(name) for name in NAMES]) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[browser.Browser]:
    """A browser that plays a tone in place of a microphone."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    samples = (
        8000
        * np.sin(np.arange(48_000 * SECONDS) * 0.05)
        * (np.arange(48_000 * SECONDS) % 9600 < 4800)
    )
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    microphone = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}",
    )
    with browser.chromium(*microphone) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_answered_without_another_host(name, address, chromium, tmp_path):
    visitor = browser.visit(chromium)
    panel = visitor.open(address, name.replace("_", " "))
    browser.use_example(panel)
    assert visitor.hosts == {"127.0.0.1"}
    assert visitor.problems == []
    visitor.window.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    assert (tmp_path / f"{name}.png").stat().st_size > 5000
    visitor.window.context.close()


def test_the_command_serves_a_page_until_it_is_interrupted(tmp_path):
    found = entry("sentiment")
    run = write_run(tmp_path / "run", found.app, found.trained)
    command = [sys.executable, "-m", "unroll", "sentiment", "demo", str(run.path)]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        address = process.stdout.readline().strip()
        assert "Unroll: sentiment" in requests.get(address, timeout=60).text
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines() == [
        "unroll: the page is ready. Ctrl-C ends it.",
        "unroll: stopped.",
    ]
    assert list((tmp_path / "temporary").glob("unroll-demo-*")) == []


def test_bad_input_is_a_message(address, chromium):
    visitor = browser.visit(chromium)
    panel = visitor.open(address, "vqa")
    panel.get_by_role("button", name="Run").click()
    message = "image is missing: add a file, or choose an example."
    expect(visitor.window.get_by_text(message)).to_be_visible(timeout=browser.TIMEOUT)
    assert visitor.hosts == {"127.0.0.1"}
    visitor.window.context.close()


def test_a_microphone_is_transcribed_while_it_records(address, chromium):
    visitor = browser.visit(chromium)
    panel = visitor.open(address, "speech ctc")
    panel.get_by_role("button", name="Listen to the microphone").click()
    panel.get_by_role("button", name="Record", exact=True).click()
    transcript = panel.get_by_label("transcript").last
    expect(transcript).to_have_value(re.compile(r"\w+ \w+"), timeout=browser.TIMEOUT)
    assert visitor.hosts == {"127.0.0.1"}
    visitor.window.context.close()


def test_two_visitors_have_a_dialog_each(chromium):
    found = entry("vqa", data="scenes_dialog", history=True)
    with page.serve([found]) as address:
        mine, theirs = browser.visit(chromium), browser.visit(chromium)
        for visitor in (mine, theirs):
            browser.use_example(visitor.open(address))
        browser.say(mine.window.locator("body"), "Only mine?")
        browser.say(theirs.window.locator("body"), "Only theirs?")
        for visitor, line, other in ((mine, "mine", "theirs"), (theirs, "theirs", "mine")):
            expect(visitor.window.get_by_test_id("user").last).to_have_text(f"Only {line}?")
            history = visitor.window.get_by_test_id("highlighted-text").last
            expect(history).to_contain_text("What color is the ring?")
            expect(visitor.window.locator("body")).not_to_contain_text(f"Only {other}?")
            expect(visitor.window.get_by_label(re.compile("share", re.I))).to_have_count(0)
        # The picture of another example.
        mine.window.locator("tr.tr-body").last.click()
        expect(mine.window.get_by_test_id("bot")).to_have_count(0)
        # The button of the component.
        theirs.window.get_by_label("Clear").click()
        expect(theirs.window.get_by_test_id("bot")).to_have_count(0)
        browser.say(theirs.window.locator("body"), "<b>_And now?_</b>")
        expect(theirs.window.get_by_test_id("user")).to_have_text("<b>_And now?_</b>")
        expect(theirs.window.locator("body")).not_to_contain_text("Only theirs?")
        for visitor in (mine, theirs):
            assert visitor.problems == []
            assert visitor.hosts == {"127.0.0.1"}
            visitor.window.context.close()
