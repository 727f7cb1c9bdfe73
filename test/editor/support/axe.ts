/** What axe-core says against what stands on a page. */
import assert from 'node:assert/strict';
import type { Page } from 'playwright-core';

const AXE = require.resolve('axe-core/axe.min.js');

interface Violation {
  id: string;
  impact: string;
  nodes: Array<{ html: string; any: Array<{ message: string }> }>;
}

/**
 * Fails where axe finds something serious or critical.
 * @param where a selector; the editor around it is not ours
 */
export async function assertAccessible(page: Page, where: string, what = where): Promise<void> {
  await page.locator(where).first().waitFor();
  // By evaluate, not by a script element: a page may forbid those.
  const known = await page.evaluate(() => 'axe' in window);
  if (!known) await page.evaluate(await script());
  const { checked, found } = await page.evaluate(async (selector) => {
    const { axe } = window as unknown as {
      axe: { run: (where: string) => Promise<{ violations: Violation[]; passes: unknown[] }> };
    };
    const { violations, passes } = await axe.run(selector);
    const serious = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
    return {
      checked: passes.length,
      found: serious.map(
        ({ id, nodes }) =>
          `${id}: ${nodes.map(({ html, any }) => `${html.slice(0, 160)} (${any[0]?.message ?? ''})`).join(' | ')}`,
      ),
    };
  }, where);
  assert.ok(checked > 5, `${what}: axe has checked ${checked} rules`);
  assert.deepEqual(found, [], what);
}

async function script(): Promise<string> {
  const { readFile } = await import('node:fs/promises');
  return readFile(AXE, 'utf8');
}
