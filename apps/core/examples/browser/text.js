/**
 * Text to tokens and ids as in the SavedModel, whose functions are in `pipelines/text.py` and
 * `pipelines/tagging.py`.
 */

const UNKNOWN = 1; // 0 is padding

// White space and control characters.
const SEPARATORS =
  "\\x00-\\x20\\x7f-\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
// Punctuation marks that `splitWords` makes words.
const MARKS = ',?!;()\\[\\]"';
// What `tokenize` replaces, one after the other, as `pipelines/text.py` explains.
const STEPS = [
  [new RegExp(`[${SEPARATORS}]+`, "gu"), " "],
  [/<br *\/?>/gu, " "],
  [/[\u2018\u2019\u02bc]/gu, "'"],
  [/[\p{Cf}\ufe0e\ufe0f]/gu, ""],
  [/-(lrb|rrb|lsb|rsb|lcb|rcb)-/gu, " "],
  [/(\p{L})n't\b/gu, "$1 n't"],
  [/(^| )'/gu, "$1' "],
  [/' ?(s|m|d|ll|re|ve)\b/gu, " '$1"],
  [/[^\p{L}\p{M}\p{N} ']|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/gu, " $& "],
  [/'( |$)/gu, " ' $1"],
];

/**
 * Unicode's `NFKC_Casefold`: without differences of case and of compatible characters, and without
 * characters that are invisible by default.
 */
export function foldCase(text) {
  const folded = Array.from(text.normalize("NFKC"), foldCharacter).join("");
  return folded.replace(/\p{Default_Ignorable_Code_Point}/gu, "").normalize("NFKC");
}

function foldCharacter(character) {
  if (character === "\u0131") return character; // the dotless i, whose upper case is I
  // The only script that folds to upper case.
  if (/\p{Script=Cherokee}/u.test(character)) return character.toUpperCase();
  return character.toLowerCase().toUpperCase().toLowerCase();
}

/** The words, numbers, punctuation marks and emoji of a text, normalized. */
export function tokenize(text) {
  let normal = foldCase(text.toWellFormed());
  for (const [pattern, replacement] of STEPS) normal = normal.replace(pattern, replacement);
  return normal.split(" ").filter(Boolean);
}

/** The words of a text as it is typed, `{word, begin, end}` with their positions in the text. */
export function splitWords(text) {
  const spaced = text.toWellFormed().replace(new RegExp(`[${SEPARATORS}]`, "gu"), " ");
  // A full stop ends the text, unless it follows a single letter or an abbreviation ("p.m.").
  const body = spaced.replace(/((?:^| )[^ .]{2,})\.+ *$/u, "$1");
  const found = body.matchAll(new RegExp(`[${MARKS}]|[^ ${MARKS}]+`, "gu"));
  return Array.from(found, ({ 0: word, index }) => ({
    word,
    begin: index,
    end: index + word.length,
  }));
}

/** A word of `splitWords` as in a vocabulary. */
export function foldWord(word) {
  return foldCase(word).replace(/\p{N}/gu, "0");
}

/** The id of a token. A number that is unknown is looked up with zeros for its digits. */
export function lookUp(vocabulary, token) {
  return vocabulary.get(token) ?? vocabulary.get(token.replace(/\p{Nd}/gu, "0")) ?? UNKNOWN;
}
