import { show } from '../../engine/errors';
import { completeRecipe } from '../../engine/image/recipe';
import type { Conditioning, Finding } from '../../engine/types';

/** What the user should know about an encoded prompt: words that were cut off or that the model doesn't know. */
export function conditioningFindings({ prompt, truncated, unknownWords }: Conditioning): Finding[] {
  const findings: Finding[] = [];
  if (truncated) {
    findings.push({
      code: 'TRUNCATED_PROMPT',
      message: `The prompt ${show(prompt)} is too long for the model; cut off: ${show(truncated)}.`,
    });
  }
  if (unknownWords?.length) {
    const some = unknownWords.slice(0, 20).map((word) => show(word));
    findings.push({
      code: 'UNKNOWN_WORDS',
      message: `The model doesn't know these words of the prompt ${show(prompt)}: ${some.join(', ')}.`,
    });
  }
  return findings;
}

/** @param where what holds the names, which mean nothing there */
export function unknownProperties(where: string, names: string[]): Finding[] {
  if (names.length === 0) return [];
  const some = names.slice(0, 20).join(', ');
  return [{ code: 'UNKNOWN_PROPERTY', message: `Unknown in ${where}, and ignored: ${some}.` }];
}

/** What a picture's recipe lacks, so that the same picture can't be made again from its file alone. */
export function recipeFindings(recipe: unknown): Finding[] {
  const { left, apart } = completeRecipe(recipe);
  const findings: Finding[] = [];
  if (left.length > 0) {
    const some = left.slice(0, 20).join(', ');
    const message = `The recipe in the file is without ${some}: too large, or of no kind that a recipe holds.`;
    findings.push({ code: 'RECIPE_INCOMPLETE', message });
  }
  if (apart.length > 0)
    findings.push({ code: 'RECIPE_APART', message: `The recipe in the file is without ${apart.join(' and ')}.` });
  return findings;
}
