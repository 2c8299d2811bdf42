"""The page of `demo`: models to try in a browser, built from the protocol of the apps with Gradio.

The page runs on this machine alone, loads nothing from other hosts, and keeps uploaded files in a
temporary folder until it ends. What a visitor enters is not shared with other visitors.
"""

import contextlib
import html
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.protocol import Page, Trained, hook
from unroll.apps.core.runs import Run, app_name
from unroll.pipelines.errors import DataError

MAX_CHARACTERS = 20_000  # of a text
MAX_FILE_SIZE = "20mb"
_WAITING = 32  # requests
_SESSIONS = 200  # visitors whose state is kept
_HOUR = 60 * 60
_SUFFIXES = {"image": ".png", "audio": ".wav", "table": ".csv"}
_ROLE = {"user": "user", "model": "assistant"}
# Fonts of the visitor's machine: those of Gradio's themes are downloaded.
_FONT = ("system-ui", "sans-serif")
_MONOSPACE = ("ui-monospace", "monospace")
# The label and the buttons of a plot lie on its upper edge.
_CSS = ".plot img { padding-top: 2.5rem; } thead th * { white-space: nowrap; }"


@dataclass(frozen=True)
class Entry:
    """A model on a page.

    Attributes:
        app: its app.
        trained: the model.
        description: Markdown above its inputs.
    """

    app: ModuleType
    trained: Trained
    description: str


def import_gradio() -> ModuleType:
    """Gradio, which sends no statistics.

    Raises:
        UsageError: if it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise UsageError(
            f"demo needs the package {error.name}: pip install 'unroll-keras[demo]'."
        ) from None
    return gradio


@contextlib.contextmanager
def serve(entries: list[Entry], port: int = 0, share: bool = False) -> Iterator[str]:
    """Serves a page with a tab for each model, and yields its address.

    Args:
        entries: the models.
        port: the port; 0 for the first free one from 7860 on.
        share: whether anyone can reach the page through a public address of Gradio's servers.

    Raises:
        UsageError: if Gradio is not installed, the port is taken, or there is no public address.
    """
    gradio = import_gradio()
    with tempfile.TemporaryDirectory(prefix="unroll-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(entries, Path(folder))
        try:
            _, local, public = page.launch(
                server_name="127.0.0.1",
                server_port=port or None,
                share=share,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=MAX_FILE_SIZE,
                state_session_capacity=_SESSIONS,
                css=_CSS,
                theme=gradio.themes.Base(font=_FONT, font_mono=_MONOSPACE),
                footer_links=["api"],
                run_history=False,
                ssr_mode=False,
                pwa=False,
                enable_monitoring=False,
            )
        except OSError as error:
            raise UsageError(f"--port={port}: {error}") from None
        try:
            if share and not public:
                raise UsageError("--share: Gradio's servers gave no public address.")
            yield public or local
        finally:
            page.close(verbose=False)


def build(entries: list[Entry], folder: Path):
    """The page, as Gradio's `Blocks`.

    The API has a function for each app, with its name. Its last result is the JSON of `predict`.

    Args:
        entries: the models.
        folder: for the files of examples.
    """
    gradio = import_gradio()
    names = [app_name(entry.app) for entry in entries]
    options = {"analytics_enabled": False, "delete_cache": (_HOUR, _HOUR)}
    # Tabs that do not fit into the width are in a menu.
    options["fill_width"] = len(entries) > 1
    with gradio.Blocks(title=f"Unroll: {', '.join(names)}", **options) as page:
        if len(entries) == 1:
            _Tab(gradio, entries[0], folder).build()
        else:
            with gradio.Tabs():
                for name, entry in zip(names, entries, strict=True):
                    with gradio.Tab(name.replace("_", " "), id=name):
                        _Tab(gradio, entry, folder).build()
    return page.queue(max_size=_WAITING)


class _Tab:
    """The part of the page for one model."""

    def __init__(self, gradio: ModuleType, entry: Entry, folder: Path):
        self.gradio = gradio
        self.app, self.trained, self.description = entry.app, entry.trained, entry.description
        self.name = app_name(entry.app)
        self.page: Page = hook(self.app, "page")(self.trained)
        converse = hook(self.app, "converse")
        self.is_dialog = bool(converse and converse(self.trained))
        # The text of a reply of a dialog.
        self._reply = next(iter(self.page.outputs.values()))[1] if self.is_dialog else None
        self.has_plot = self.page.plot and hook(self.app, "plot") is not None
        self.folder = folder
        # A model answers one request after the other.
        self.event = {"concurrency_limit": 1, "concurrency_id": self.name}

    def build(self) -> None:
        self.gradio.Markdown(self.description)
        self._build_dialog() if self.is_dialog else self._build_form()

    # A form: inputs, a button, and the parts of the result.

    def _build_form(self) -> None:
        gradio = self.gradio
        with gradio.Row():
            with gradio.Column():
                inputs = [self._input(label, kind) for label, kind in self.page.inputs.items()]
                button = gradio.Button("Run", variant="primary")
                gradio.Examples(self._examples(), inputs, label="Examples")
            with gradio.Column():
                outputs = self._outputs()
        event = {"inputs": inputs, "outputs": outputs, "preprocess": False, **self.event}
        button.click(self.run, api_name=self.name, **event)
        for part, kind in zip(inputs, self.page.inputs.values(), strict=True):
            if kind == "line":
                part.submit(self.run, api_visibility="private", **event)
        if self.page.listen:
            self._build_listener()

    def _input(self, label: str, kind: str):
        gradio = self.gradio
        if kind == "image":
            return gradio.Image(label=label, type="filepath", height=300, buttons=["fullscreen"])
        if kind == "audio":
            sources = ["upload", "microphone"]
            return gradio.Audio(label=label, type="filepath", sources=sources, buttons=[])
        if kind == "table":
            return gradio.File(label=f"{label} (CSV or Parquet)", type="filepath", height=120)
        lines = 1 if kind == "line" else 4
        return gradio.Textbox(
            label=label, lines=lines, max_lines=max(lines, 12), max_length=MAX_CHARACTERS
        )

    def _examples(self) -> list[list]:
        """A row of parts for each example. Files are written to the folder of the page."""
        rows = []
        for k, raw in enumerate(self.app.examples()):
            split = self.page.example or (lambda x: x if isinstance(x, tuple) else (x,))
            parts = zip(split(raw), self.page.inputs.items(), strict=True)
            rows.append([self._example(k, part, *described) for part, described in parts])
        return rows

    def _example(self, k: int, part: str | bytes, label: str, kind: str) -> str:
        if not isinstance(part, bytes):
            return part
        path = self.folder / "examples" / self.name / f"{label}-{k + 1}{_SUFFIXES[kind]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part)
        return str(path)

    @property
    def outputs(self) -> dict[str, tuple[str, Callable[[dict], Any]]]:
        """The parts of a result by label; those of the page or what `show` returns.

        The first one of a dialog, the reply, is not among them.
        """
        if self.is_dialog:
            return dict([*self.page.outputs.items()][1:])
        if self.page.outputs or self.page.is_streamed:
            return self.page.outputs
        return {"result": ("text", lambda result: str(self.app.show(result)))}

    @property
    def has_result(self) -> bool:
        """Whether there is a result of `predict`, and not only the text of `stream`."""
        return bool(self.page.outputs or self.outputs) or self.has_plot

    def _outputs(self) -> list:
        gradio = self.gradio
        found = []
        if self.page.is_streamed:
            found.append(gradio.Textbox(label="text", lines=3, buttons=["copy"]))
        for label, (kind, _) in self.outputs.items():
            found.append(self._output(label, kind))
        if self.has_plot:
            buttons = ["download", "fullscreen"]  # and none that shares with Gradio's servers
            options = {"interactive": False, "buttons": buttons, "elem_classes": "plot"}
            found.append(gradio.Image(label="plot", type="filepath", **options))
        if self.has_result:
            with gradio.Accordion("JSON", open=False):
                found.append(gradio.JSON(show_label=False))
        return found

    def _output(self, label: str, kind: str):
        gradio = self.gradio
        if kind == "scores":
            return gradio.Label(label=label)
        if kind in ("spans", "weights"):
            return gradio.HighlightedText(label=label, combine_adjacent=False)
        if kind == "table":
            return gradio.Dataframe(label=label, interactive=False, wrap=True, max_height=300)
        return gradio.Textbox(label=label, interactive=False, buttons=["copy"])

    def run(self, *parts) -> Iterator[list]:
        """The values of the outputs for the parts of an input, first of the text as it grows."""
        with self._readable_errors():
            raw = self._raw(parts)
            text: list[str] = []
            if self.page.is_streamed:
                rest = len(self.outputs) + self.has_plot + self.has_result
                for piece in hook(self.app, "stream")(self.trained, raw):
                    text = [(text[0] if text else "") + piece]
                    yield [*text, *[self.gradio.skip()] * rest] if rest else text[0]
                text = text or [""]
            if self.has_result:
                [result] = self.app.predict(self.trained, [raw])
                yield [*text, *self._parts_of(result)]

    def _parts_of(self, result: dict) -> list:
        """The values of the components of `_outputs`, except for the text that grows."""
        shown = [_shown(kind, of(result)) for kind, of in self.outputs.values()]
        return [*shown, *self._plot(result), result]

    def _raw(self, parts: Sequence):
        """The raw input of the parts, which are as the browser sends them.

        Raises:
            UsageError: if a file is missing, or a text is too long.
        """
        found = []
        for part, (label, kind) in zip(parts, self.page.inputs.items(), strict=True):
            if kind in _SUFFIXES:
                if not part:
                    raise UsageError(f"{label} is missing: add a file, or choose an example.")
                found.append(part["path"])
                continue
            text = "" if part is None else str(part)
            if len(text) > MAX_CHARACTERS:
                raise UsageError(
                    f"{label} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are allowed."
                )
            found.append(text)
        return found[0] if len(found) == 1 else tuple(found)

    def _plot(self, result: dict) -> list[str]:
        """The path of the plot of a result, in a list that is empty if there is none."""
        if not self.has_plot:
            return []
        handle, path = tempfile.mkstemp(suffix=".png", dir=self.folder)
        os.close(handle)
        hook(self.app, "plot")(result, Path(path))
        return [path]

    # A microphone: its pieces, as they are recorded, and the state of the session.

    def _build_listener(self) -> None:
        gradio = self.gradio
        with gradio.Accordion("Listen to the microphone", open=False):
            microphone = gradio.Audio(
                label="microphone",
                sources=["microphone"],
                streaming=True,
                type="numpy",
                buttons=[],
            )
            transcript = gradio.Textbox(label="transcript", interactive=False)
        state = gradio.State(None)
        microphone.start_recording(
            lambda: (None, ""), None, [state, transcript], api_visibility="private", queue=False
        )
        microphone.stream(
            self.hear,
            [microphone, state, transcript],
            [state, transcript],
            api_visibility="private",
            stream_every=0.5,
            time_limit=600,
            **self.event,
        )

    def hear(
        self, piece: tuple[int, np.ndarray] | None, state: Callable | None, text: str
    ) -> tuple[Callable | None, str]:
        """The state and the transcript after a piece of a recording."""
        with self._readable_errors():
            if piece is None:
                return state, text
            rate, samples = piece
            state = state or self.page.listen()
            samples = samples.astype("float32") / 32768
            samples = samples.mean(axis=1) if samples.ndim == 2 else samples
            return state, (text or "") + state(samples, rate)

    # A dialog: the turns so far, and the model's memory of them.

    def _build_dialog(self) -> None:
        gradio = self.gradio
        *about, (label, _) = self.page.inputs.items()
        with gradio.Row() if about else gradio.Column():
            with gradio.Column(scale=2):
                # Texts are not Markdown, and no button shares with Gradio's servers.
                options = {"render_markdown": False, "buttons": ["copy"]}
                chat = gradio.Chatbot(label="dialog", height=400, **options)
                line = gradio.Textbox(label=label, max_length=MAX_CHARACTERS)
                with gradio.Row():
                    button = gradio.Button("Send", variant="primary")
                    clear = gradio.Button("New dialog")
            with gradio.Column():
                parts = [*(self._input(*each) for each in about), line]
                if about:
                    gradio.Examples(self._examples(), parts, label="Examples")
                shown = self._outputs()
        state = gradio.State(None)
        event = {"inputs": [*parts, chat, state], "outputs": [line, chat, state, *shown]}
        event |= {"preprocess": False, **self.event}
        button.click(self.answer, api_name=self.name, **event)
        line.submit(self.answer, api_visibility="private", **event)
        # Also with another picture, and with the button of the component.
        for begins in (clear.click, chat.clear, *(part.change for part in parts[:-1])):
            begins(
                lambda: ([], *[None] * (1 + len(shown))),
                None,
                [chat, state, *shown],
                api_visibility="private",
                queue=False,
            )

    def answer(self, *values) -> tuple:
        """The empty line, the turns with the answer, the model's memory, the parts of the result.

        Args:
            values: the parts of the input, of which the line is the last, the turns so far, and the
                memory.
        """
        *parts, chat, state = values
        with self._readable_errors():
            raw = self._raw(parts)
            state = state or hook(self.app, "converse")(self.trained)
            result = state(raw)
            turns = ((parts[-1], _ROLE["user"]), (self._reply(result), _ROLE["model"]))
            # The component reads HTML.
            new = [{"role": role, "content": html.escape(text)} for text, role in turns]
            return "", [*(chat or []), *new], state, *self._parts_of(result)

    @contextlib.contextmanager
    def _readable_errors(self) -> Iterator[None]:
        """Shows an error of use as one line on the page."""
        try:
            yield
        except (UsageError, DataError) as error:
            # The folder of the page is of no interest, and the line is HTML.
            line = " ".join(str(error).split())
            raise self.gradio.Error(html.escape(line), print_exception=False) from None


def _shown(kind: str, value):
    """The value of an output as Gradio's component takes it."""
    if kind == "weights":
        largest = max((weight for _, weight in value), default=0) or 1
        return [(text, weight / largest) for text, weight in value]
    if kind == "table":
        heads, rows = value
        return {"headers": heads, "data": rows}
    return value


def entry(app: ModuleType, run: Run, line: str) -> Entry:
    """The model of a run, described by a line about the app, its data and its figures.

    Raises:
        UsageError: if a file of the run is broken.
    """
    trained = load_trained(app, run)
    name = Path(trained.config.data).name  # without the folders of the user's machine
    parts = [f"**{line}**", f"Trained on {name} (`{run.path}`)."]
    for split, figures in run.read_metrics().items():
        found = [f"{n.replace('_', ' ')} {figures[n]:.4g}" for n in app.METRICS if n in figures]
        parts.append(f"{split.capitalize()} split: {', '.join(found)}.")
    return Entry(app, trained, "  \n".join(parts))


def newest_run(app: ModuleType, folder: Path = Path("runs")) -> Run | None:
    """The run in `<folder>/<app>` whose weights were written last; `None` if there is none.

    Runs that cannot be used are named on the standard error.
    """
    weights = [
        run.best for run in map(Run, folder.glob(f"{app_name(app)}/*")) if run.best.is_file()
    ]
    for path in sorted(weights, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            return Run.open(app, path.parent)
        except UsageError as error:
            print(f"unroll: {error}", file=sys.stderr)
    return None
