/** The page: a text in, the answers of both runtimes out. */

import { answer, loadExport, loadLiteRtModel, loadOnnxModel } from "./model.js";

const RUNS = 50; // of a measurement
const field = document.querySelector("textarea");
const status = document.querySelector("output");
const buttons = document.querySelectorAll("button");

function element(name, content = [], properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...[content].flat());
  return made;
}

function showPart({ text, label, weight }, largest) {
  if (label) return element("mark", [text, element("small", label)]);
  if (weight === undefined) return text;
  const part = element("span", text, { title: weight.toFixed(3) });
  part.style.background = `rgb(255 170 0 / ${(100 * weight) / largest}%)`;
  return part;
}

function showAnswer({ classes, parts, milliseconds }) {
  const largest = Math.max(...parts.map(({ weight = 0 }) => weight));
  const bars = classes.map(([name, probability]) => {
    const text = `${name} ${(100 * probability).toFixed(1)} %`;
    return element("div", [element("meter", [], { value: probability }), text]);
  });
  return [
    element("p", parts.map((part) => showPart(part, largest)), { dir: "auto", className: "text" }),
    ...bars,
    element("p", `${milliseconds.toFixed(1)} ms`, { className: "time" }),
  ];
}

async function showMedian(exported, model, text) {
  const times = [];
  for (let k = 0; k < RUNS; k++) times.push((await answer(exported, model, text)).milliseconds);
  const median = times.sort((a, b) => a - b)[RUNS / 2];
  return [element("p", `Median of ${RUNS} runs: ${median.toFixed(2)} ms`, { className: "time" })];
}

/** Replaces the content of a panel by the elements that `action` makes, or by its error. */
async function fill(panel, action) {
  try {
    panel.replaceChildren(...(await action()));
  } catch (error) {
    panel.replaceChildren(element("p", error.message, { className: "error" }));
  }
}

/** Adds a panel for a runtime. The first run prepares the model, and takes longer than the others. */
async function addRuntime(name, load, exported) {
  const panel = element("div", "Loading ...");
  const title = element("h2", name);
  document.querySelector("main").append(element("section", [title, panel]));
  const runtime = { panel };
  await fill(panel, async () => {
    const model = await load(exported);
    title.append(`: ${model.file}`);
    await answer(exported, model, "");
    runtime.model = model;
    return [];
  });
  return runtime;
}

async function start() {
  const exported = await loadExport(new URL("model/", document.baseURI));
  const runtimes = [
    await addRuntime("ONNX Runtime Web", loadOnnxModel, exported),
    await addRuntime("LiteRT.js", loadLiteRtModel, exported),
  ].filter(({ model }) => model);

  /** One runtime after the other: they share the thread. */
  async function forEach(action) {
    buttons.forEach((button) => (button.disabled = true));
    status.textContent = "Running ...";
    for (const { panel, model } of runtimes) await fill(panel, () => action(model));
    status.textContent = "";
    buttons.forEach((button) => (button.disabled = false));
  }
  const run = () =>
    forEach(async (model) => showAnswer(await answer(exported, model, field.value)));

  document.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  document
    .querySelector("#measure")
    .addEventListener("click", () => forEach((model) => showMedian(exported, model, field.value)));
  field.value ||= exported.app.example;
  await run();
}

start().catch((error) => {
  status.className = "error";
  status.textContent = error.message;
});
