/** Which words of a prompt a checkpoint with a closed vocabulary does not know. */

const WORDS = /\p{L}+|\p{N}+|\p{Extended_Pictographic}/gu;

/** @returns each unknown word once, lower case, in order; an emoji is one, punctuation is none */
export function findUnknownWords(prompt: string, vocabulary: string[]): string[] {
  // An entry such as "oil painting" knows both of its words.
  const known = new Set(vocabulary.flatMap((entry) => entry.toLowerCase().match(WORDS) ?? []));
  const words = prompt.normalize('NFC').toLowerCase().match(WORDS) ?? [];
  return [...new Set(words)].filter((word) => !known.has(word));
}
