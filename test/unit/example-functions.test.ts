/**
 * The Function nodes of the examples, each by itself in a context as Node-RED gives it one: whatever comes, they say
 * what a message lacks, and nothing is thrown that was not foreseen.
 */
import assert from 'node:assert/strict';
import util from 'node:util';
import { startFunction, type Any } from './support/function-node';
import { readExamples } from './support/package';

/** What may lie where something else was expected; undefined: nothing is there. */
const VALUES: unknown[] = [
  undefined,
  null,
  '',
  'text',
  5,
  NaN,
  true,
  [],
  [null],
  [[]],
  {},
  { a: null },
  Buffer.from('b'),
];
const ODD = VALUES.map((value) => ({ value, text: util.inspect(value) }));
/** Of a request only what its client decides may be anything. */
const CLIENTS = /^msg\.req\.(headers|query|params)\./;
const DEEPEST = 6;
/** What the sampler put there is as the node before has left it. */
const OURS = /^msg\.(step|latents)(\.[^.]+){2}/;

const tensor = (data: Any, ...dims: number[]): Any => ({ kind: 'multidiffusion/tensor', dtype: 'uint8', dims, data });
const response = (): Any => ({
  _res: { on() {}, once() {}, write() {}, writeHead() {}, end() {}, destroy() {}, writableNeedDrain: false },
});
const request = (method: string, path: string): Any => ({
  method,
  path,
  originalUrl: `/multidiffusion${path}?wait=false`,
  ip: '127.0.0.1',
  headers: { authorization: 'Bearer a', 'x-forwarded-prefix': '/p' },
  query: { wait: 'false' },
  params: { job: 'j', name: 'n' },
});

const picture = (): Any => tensor(new Uint8Array(12), 2, 2, 3);

/** Messages that have whatever a Function node of the examples looks at. */
function wholesome(): Array<() => Any> {
  const common = (): Any => {
    const latents = { ...tensor(new Float32Array(16), 1, 4, 2, 2), dtype: 'float32' };
    return {
      _msgid: 'm',
      topic: 'multidiffusion/layout/me',
      job: 'j',
      client: 'c',
      headers: { 'content-type': 'image/png' },
      generation: { seed: 4, prompt: 'a', timings: {} },
      findings: [{ code: 'A', message: 'b' }],
      filename: '/images/a.png',
      dataUri: 'data:,',
      form: { seed: '4' },
      error: { code: 'INVALID_INPUT', message: 'no', source: { type: 'debug' } },
      responseTopic: 'a',
      correlationData: Buffer.from('c'),
      latents,
      before: picture(),
      regions: [{ name: 'car' }, { name: 'tree' }],
      step: {
        index: 0,
        total: 2,
        fraction: 0.5,
        views: [{}],
        prompts: [{ weights: { data: new Float32Array(4) } }],
        predictions: [{ prompt: 0, prediction: { data: new Float32Array(16) } }],
      },
      _client: { socketId: 's' },
    };
  };
  const layout = (): Any => ({
    prompt: 'a',
    regions: [{ prompt: 'b', box: [0, 0, 1, 1] }],
    seed: 3,
    everywhere: 'a',
    left: 'b',
    steps: 4,
  });
  const news = (): Any => ({ job: 'j', event: 'step', index: 1, total: 2, rate: 3, position: 1, seed: 4, error: 'e' });
  return [
    () => ({ ...common(), payload: layout(), image: picture() }),
    () => ({ ...common(), payload: news(), image: [picture(), picture()] }),
    () => ({
      ...common(),
      payload: { ...news(), event: 'accepted' },
      picture: { bytes: Buffer.from('a'), type: 'image/png' },
    }),
    () => ({ ...common(), payload: { ...news(), event: 'failed' }, topic: '$pageview', retain: true }),
    () => ({ ...common(), payload: Buffer.from('a'), index: 0, total: 2 }),
    () => ({ ...common(), payload: Buffer.from('a'), chosen: 0 }),
    () => ({ ...common(), payload: layout(), req: request('POST', '/'), res: response() }),
    () => ({ ...common(), payload: '', req: request('GET', '/jobs/j'), res: response() }),
    () => ({ ...common(), payload: '', req: request('GET', '/jobs/j/events'), res: response() }),
    () => ({ ...common(), payload: '', req: request('GET', '/jobs/j/picture'), res: response() }),
    () => ({ ...common(), payload: '', req: request('DELETE', '/jobs/j'), res: response() }),
  ];
}

/** The places in a value at which something else may lie. */
function* placesIn(value: Any, name: string, depth = DEEPEST): Generator<string[]> {
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value) || depth === 0) return;
  for (const key of ArrayBuffer.isView(value) ? [] : Object.keys(value)) {
    const place = `${name}.${key}`;
    if (
      !/^msg\.res\b|^msg\._msgid/.test(place) &&
      !OURS.test(place) &&
      (!/^msg\.req\./.test(place) || CLIENTS.test(place))
    )
      yield [key];
    for (const inner of placesIn(value[key], place, depth - 1)) yield [key, ...inner];
  }
}

function put(msg: Any, place: string[], value: unknown): void {
  const last = place.at(-1)!;
  const holder = place.slice(0, -1).reduce((inner, key) => inner[key], msg);
  if (value === undefined && !Array.isArray(holder)) delete holder[last];
  else holder[last] = value;
}

const GALLERY = [null, 5, {}, { name: 'n', file: '/a.png', type: 'image/png', prompt: 'a' }];

describe('Function nodes of the examples', function () {
  this.timeout(60_000);
  const functions = readExamples().flatMap(({ file, nodes }) =>
    nodes.filter(({ type }) => type === 'function').map((node) => ({ file, node })),
  );

  it('are there', () => assert.ok(functions.length > 20));

  for (const { file, node } of functions) {
    it(`${file}: ${String(node.name)}`, async () => {
      const failures = new Map<string, string>();
      const { run } = await startFunction(node, { stored: { gallery: GALLERY } });
      const take = async (what: string, msg: Any): Promise<void> => {
        try {
          await run(msg);
        } catch (error) {
          // A sentence of its own, as 09 has one, is an Error and nothing more special.
          const { name, stack } = error as Error;
          if (name !== 'Error') failures.set(String(stack).split('\n')[0], what);
        }
      };
      const messages = wholesome();
      for (const { value, text } of ODD) {
        await take(`a message of only payload: ${text}`, value === undefined ? {} : { payload: value });
        const all = Object.fromEntries(Object.keys(messages[0]()).map((name) => [name, value]));
        await take(`everything ${text}`, { ...all, _msgid: 'm' });
      }
      for (const [i, make] of messages.entries()) {
        await take(`message ${i}`, make());
        for (const place of placesIn(make(), 'msg'))
          for (const { value, text } of ODD) {
            const other = make();
            put(other, place, value);
            await take(`message ${i} with msg.${place.join('.')} = ${text}`, other);
          }
      }
      assert.deepEqual(Object.fromEntries(failures), {});
    });
  }
});
