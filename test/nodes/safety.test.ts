/** What strangers may not do by a message. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import sharp from 'sharp';
import { Tensor } from '../../dist/engine';
import {
  closeModels,
  encode,
  model,
  region,
  startFlow,
  stopFlow,
  temporaryDirectory,
  type Flow,
  type Message,
} from './support/flow';

const white = (): Promise<Buffer> =>
  sharp({ create: { width: 16, height: 16, channels: 3, background: 'white' } })
    .png()
    .toBuffer();

describe('safety', function () {
  this.timeout(60_000);
  let flow: Flow;
  let masks: string;
  let outside: string;
  before(async () => {
    masks = path.join(temporaryDirectory(), 'masks');
    outside = temporaryDirectory();
    fs.mkdirSync(path.join(masks, 'folder'), { recursive: true });
    fs.writeFileSync(path.join(masks, 'good.png'), await white());
    fs.writeFileSync(path.join(outside, 'secret.png'), await white());
    fs.symlinkSync(path.join(outside, 'secret.png'), path.join(masks, 'link.png'));
    fs.symlinkSync(outside, path.join(masks, 'linked'));
    fs.symlinkSync(path.join(masks, 'good.png'), path.join(masks, 'inside.png'));
    flow = await startFlow(
      [
        model(),
        encode('encode', 'a sofa', 'region'),
        region('region', [0, 0, 0.5, 0.5], 'out'),
        { id: 'save', type: 'save-image', save: true, wires: [['out']] },
      ],
      {
        multidiffusion: { maskDirectory: masks, imageDirectory: path.join(outside, 'images') },
      },
    );
  });
  after(stopFlow);
  after(closeModels);

  it('masks are read from the mask directory and nowhere else, and the refusal tells nothing of what is there', async () => {
    for (const image of ['good.png', './good.png', 'inside.png', 'folder/../good.png', 'good.png/']) {
      const { regions } = (await flow.ok('encode', { region: { image } })) as { regions: Array<{ mask: Tensor }> };
      assert.deepEqual(regions[0].mask.dims, [1, 16, 16]);
    }
    const refusals = new Set<string>();
    for (const image of [
      'link.png',
      'linked/secret.png',
      '../masks/../masks',
      path.join(outside, 'secret.png'),
      '/etc/passwd',
      '/dev/zero',
      '/proc/self/environ',
      'folder',
      'no such.png',
      'good.png\0',
      'good.png\0.png',
      '．．/x.png',
      'x'.repeat(5000),
      'file:///etc/passwd',
      '\\\\server\\share',
      '~/x.png',
      '$HOME/x.png',
    ]) {
      const { code, message } = await flow.fails('encode', { region: { image } });
      assert.equal(code, 'INVALID_INPUT', `${image}: ${message}`);
      assert.match(
        message,
        /^region\.image is ".*; allowed: a PNG.* in the mask directory; addresses are not fetched\.$/,
      );
      assert.ok(!message.includes(masks), message);
      refusals.add(message.replace(/".*(";|\.\.\.;)/, '…'));
    }
    assert.equal(refusals.size, 1, [...refusals].join('\n'));
  });

  it('no address in a message is asked', async () => {
    let asked = 0;
    const server = http.createServer((_, response) => {
      asked++;
      response.end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mask.png`;
    const svg = Buffer.from(
      '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="16" ' +
        `height="16"><image width="16" height="16" xlink:href="${url}"/></svg>`,
    );
    const nasty: Message[] = [
      { region: { image: url } },
      { region: { image: svg } },
      { region: { image: `data:image/svg+xml;base64,${svg.toString('base64')}` } },
      { payload: { prompt: 'a', regions: [{ prompt: 'b', image: url }] } },
    ];
    for (const msg of nasty) {
      const answer = await flow.ask('encode', msg);
      assert.ok(answer.error, JSON.stringify(msg));
    }
    await flow.ask('encode', { payload: svg });
    server.close();
    assert.equal(asked, 0);
  });

  it('what is written into a picture names no path of the server', async () => {
    const { regions, generation } = await flow.ok('encode', { region: { image: 'good.png' }, credentials: 'hunter2' });
    const image = Tensor.uint8(new Uint8Array(16 * 16 * 3), [16, 16, 3]);
    const { payload } = await flow.ok('save', {
      image,
      regions,
      generation: {
        ...generation,
        token: 'hunter2',
        maskDirectory: masks,
        regions: [{ prompt: 'a', image: path.join(masks, 'good.png') }],
      },
    });
    const text = (payload as Buffer).toString('latin1');
    for (const secret of ['hunter2', masks, outside, process.cwd()]) assert.ok(!text.includes(secret), secret);
    assert.match(text, /a sofa|"prompt"/);
  });
});
