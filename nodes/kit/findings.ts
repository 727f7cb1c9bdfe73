import { show } from '../../engine/errors';
import type { Conditioning, Finding } from '../../engine/multidiffusion/types';

/** What the user should know about an encoded prompt: words that were cut off or that the model doesn't know. */
export function promptFindings({ prompt, truncated, unknownWords }: Conditioning): Finding[] {
  const findings: Finding[] = [];
  if (truncated) {
    findings.push({ code: 'TRUNCATED_PROMPT', message: `The prompt ${show(prompt)} is too long for the model; cut off: ${show(truncated)}.` });
  }
  if (unknownWords?.length) {
    const some = unknownWords.slice(0, 20).map((word) => show(word));
    findings.push({ code: 'UNKNOWN_WORDS', message: `The model doesn't know these words of the prompt ${show(prompt)}: ${some.join(', ')}.` });
  }
  return findings;
}

/** @param where what holds the names, which mean nothing there */
export function unknownProperties(where: string, names: string[]): Finding[] {
  if (names.length === 0) return [];
  const some = names.slice(0, 20).join(', ');
  return [{ code: 'UNKNOWN_PROPERTY', message: `Unknown in ${where}, and ignored: ${some}.` }];
}
