/** An export, and its model in two runtimes: ONNX Runtime Web and LiteRT.js. */

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import * as ort from "onnxruntime-web";

import { APPS } from "./apps.js";

const FUNCTION = "ids";
const AXES = ["texts", "tokens", "characters in a word"];
// A page has more than one thread only if its server sends the headers COOP and COEP.
ort.env.wasm.numThreads = 1;
let liteRt; // a promise: the runtime can be loaded once

/**
 * The manifest of an export, what the page knows of its app, and the lines of its files.
 *
 * @param {URL} folder of the export. The path ends in a slash.
 */
export async function loadExport(folder) {
  const manifest = await (await fetchFile(folder, "manifest.json")).json();
  const app = APPS[manifest.app];
  if (!app) {
    const known = Object.keys(APPS).join(" and ");
    throw new Error(`This is an export of ${manifest.app}, but the page runs ${known}.`);
  }
  const inputs = (manifest.onnx ?? manifest.litert)?.[FUNCTION].inputs ?? {};
  const unknown = Object.keys(inputs).find((name) => !app.inputs.includes(name));
  if (unknown) throw new Error(`The model needs ${unknown}, which the page does not compute.`);
  const files = {};
  for (const name of app.names) files[name] = await fetchLines(folder, name);
  for (const name of app.vocabularies) {
    const lines = await fetchLines(folder, name);
    files[name] = new Map(lines.map((line, id) => [line, id]));
  }
  return { folder, manifest, app, files };
}

/** The model in ONNX Runtime Web, which takes any number of tokens. */
export async function loadOnnxModel({ folder, manifest }) {
  const file = manifest.onnx?.[FUNCTION].file;
  if (!file) throw new Error("The export has no ONNX model: export with --formats=litert,onnx.");
  const content = await (await fetchFile(folder, file)).arrayBuffer();
  const session = await ort.InferenceSession.create(content);

  async function run(inputs) {
    const tensors = {};
    for (const name of session.inputNames) {
      tensors[name] = new ort.Tensor("int32", inputs[name].data, inputs[name].shape);
    }
    return mapValues(await session.run(tensors), (tensor) => tensor.data);
  }
  return { file, run };
}

/** The model in LiteRT.js, which needs fixed shapes: shorter inputs are padded with zeros. */
export async function loadLiteRtModel({ folder, manifest }) {
  const file = Object.keys(manifest.bytes).find((name) => /^model-1(x\d+)+\.tflite$/.test(name));
  if (!file) {
    const options = "--litert-shapes=1x50 --litert-loops";
    throw new Error(`The export has no LiteRT model of fixed shapes: add ${options}.`);
  }
  const content = new Uint8Array(await (await fetchFile(folder, file)).arrayBuffer());
  liteRt ??= loadLiteRt(new URL("../wasm/", import.meta.resolve("@litertjs/core")).href);
  await liteRt;
  const compiled = await loadAndCompile(content, { accelerator: "wasm" }).catch(() => {
    throw new Error(`LiteRT.js cannot load ${file}: export with --litert-loops.`);
  });
  const model = compiled.signatures[FUNCTION];
  const details = model.getInputDetails();

  async function run(inputs) {
    const padded = details.map(({ name, shape }) => pad(inputs[name], shape, file));
    const tensors = details.map(({ name, shape }, k) => [name, new Tensor(padded[k], [...shape])]);
    const given = Object.fromEntries(tensors);
    const results = await model.run(given);
    const outputs = mapValues(results, (tensor) => tensor.toTypedArray().slice());
    // They are in the memory of WebAssembly, which has no garbage collector.
    for (const tensor of [...Object.values(given), ...Object.values(results)]) tensor.delete();
    return outputs;
  }
  return { file, run };
}

/** The answer of a model to a text, its `tokens`, and the `milliseconds` that the model took. */
export async function answer({ app, files }, model, text) {
  // Half a pair of surrogates is U+FFFD, as in UTF-8.
  const encoded = app.encode(text.toWellFormed(), files);
  const start = performance.now();
  const outputs = await model.run(encoded.inputs);
  const milliseconds = performance.now() - start;
  return { ...app.decode(outputs, encoded, files), tokens: encoded.tokens, milliseconds };
}

/** Pads an input with zeros. A step has an id, or a row of ids. */
function pad({ data, shape }, target, file) {
  const axis = shape.findIndex((size, k) => size > target[k]);
  if (axis >= 0) {
    const given = `${shape[axis]} ${AXES[axis]}`;
    throw new Error(`The text has ${given}, but ${file} takes at most ${target[axis]}.`);
  }
  const [, steps, width = 1] = shape;
  const [, length, room = 1] = target;
  const padded = new Int32Array(length * room);
  for (let k = 0; k < steps; k++) padded.set(data.subarray(k * width, (k + 1) * width), k * room);
  return padded;
}

async function fetchFile(folder, name) {
  const address = new URL(name, folder);
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address.pathname} cannot be loaded: ${response.status}.`);
  return response;
}

async function fetchLines(folder, name) {
  const text = await (await fetchFile(folder, `${name}.txt`)).text();
  return text.split("\n").slice(0, -1);
}

function mapValues(object, f) {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, f(value)]));
}
