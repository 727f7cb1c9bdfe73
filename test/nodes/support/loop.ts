/** Flows whose steps are wired. */
import { sampler, type FlowNode } from './flow';

/** A Function node of the loop. */
export const func = (id: string, code: string, next: string | string[]): FlowNode => ({
  id,
  type: 'function',
  func: code,
  outputs: Array.isArray(next) ? next.length : 1,
  timeout: 0,
  noerr: 0,
  initialize: '',
  finalize: '',
  libs: [],
  wires: [next].flat().map((to) => (to ? [to] : [])),
});
export const bootstrap = (id: string, next: string, more = {}): FlowNode => ({
  id,
  type: 'multidiffusion-bootstrap',
  wires: [[next]],
  ...more,
});
export const denoise = (id: string, next: string): FlowNode => ({
  id,
  type: 'multidiffusion-denoise',
  wires: [[next]],
});
export const fuse = (id: string, next: string, more = {}): FlowNode => ({
  id,
  type: 'multidiffusion-fuse',
  wires: [[next]],
  ...more,
});

/** A sampler with wired steps. */
export const wired = (id: string, first: string, next = 'out', more = {}): FlowNode =>
  sampler(id, next, { stepMode: 'wired', wires: [[next], first ? [first] : [], ['progress']], ...more });

/** A sampler with the three nodes, `before`, between or after which others may be put by their wires. */
export const loop = (
  id = 'sampler',
  more = {},
  nodes: { bootstrap?: object; fuse?: object } = {},
  next = 'out',
): FlowNode[] => [
  wired(id, `${id}-bootstrap`, next, more),
  bootstrap(`${id}-bootstrap`, `${id}-denoise`, nodes.bootstrap),
  denoise(`${id}-denoise`, `${id}-fuse`),
  fuse(`${id}-fuse`, id, nodes.fuse),
];
