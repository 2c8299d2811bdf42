/**
 * The apps that the page runs, by the name in the manifest of an export.
 *
 * - `example`: a text.
 * - `vocabularies`: the files whose lines are the tokens of an input, read as a `Map` to their ids.
 * - `names`: the files whose lines are the names of an output's ids.
 * - `inputs`: of the exported function `ids`.
 * - `encode(text, files)`: the `tokens` of a text, and the `inputs` for a batch of one,
 *   `{data: Int32Array, shape}` by name.
 * - `decode(outputs, encoded, files)`: the answer. `classes` are pairs of a name and its
 *   probability, the most probable first; `parts` are the pieces of the text,
 *   `{text, label, weight}`.
 */

import { foldWord, lookUp, splitWords, tokenize } from "./text.js";

const MAX_CHARACTERS = 20; // of a word that are read

/** The ids of a sequence. A model needs at least one step, as the padding of an empty text. */
function sequence(found) {
  const data = Int32Array.from(found.length ? found : [0]);
  return { data, shape: [1, data.length] };
}

/** The ids of the characters of each word. */
function matrix(rows) {
  const width = Math.max(1, ...rows.map((row) => row.length));
  const data = new Int32Array(Math.max(1, rows.length) * width);
  rows.forEach((row, k) => data.set(row, k * width));
  return { data, shape: [1, data.length / width, width] };
}

const sentiment = {
  example: "The room was not clean, but the staff made up for it.",
  vocabularies: ["vocabulary"],
  names: ["labels"],
  inputs: ["tokens"],

  encode(text, { vocabulary }) {
    const tokens = tokenize(text);
    return { tokens, inputs: { tokens: sequence(tokens.map((token) => lookUp(vocabulary, token))) } };
  },

  decode({ probabilities, attention }, { tokens }, { labels }) {
    const classes = labels.map((label, k) => [label, probabilities[k]]);
    const parts = tokens.map((token, k) => ({ text: `${token} `, weight: attention?.[k] }));
    return { classes: classes.sort((a, b) => b[1] - a[1]), parts };
  },
};

const slotFilling = {
  example: "Show me flights from Boston to Denver on Monday morning.",
  vocabularies: ["vocabulary", "characters"],
  names: ["tags", "intents"],
  inputs: ["tokens", "characters"],

  encode(text, { vocabulary, characters }) {
    const words = splitWords(text);
    const tokens = words.map(({ word }) => word);
    const letters = tokens.map((word) => [...word].slice(0, MAX_CHARACTERS));
    return {
      text,
      words,
      tokens,
      inputs: {
        tokens: sequence(tokens.map((word) => lookUp(vocabulary, foldWord(word)))),
        characters: matrix(letters.map((row) => row.map((letter) => lookUp(characters, letter)))),
      },
    };
  },

  decode({ tags, intent, intent_score }, { text, words }, { tags: names, intents }) {
    const classes = intent ? [[intents[intent[0]], intent_score[0]]] : [];
    return { classes, parts: spans(text, words, words.map((_, k) => names[tags[k]])) };
  },
};

/** A text in pieces: the spans of BIO tags with their labels, and what is between them. */
function spans(text, words, tags) {
  const parts = [];
  let end = 0; // of the last piece
  tags.forEach((tag, k) => {
    if (!tag.startsWith("B-")) return;
    let last = k;
    while (tags[last + 1]?.startsWith("I-")) last++;
    parts.push({ text: text.slice(end, words[k].begin) });
    end = words[last].end;
    parts.push({ text: text.slice(words[k].begin, end), label: tag.slice(2) });
  });
  return [...parts, { text: text.slice(end) }];
}

export const APPS = { sentiment, slot_filling: slotFilling };
