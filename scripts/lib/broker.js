'use strict';
// A small MQTT broker, so that the MQTT example works without one being installed.
const net = require('node:net');
const { Aedes } = require('aedes');

/**
 * @param {number} [port] 0 is any
 * @returns {Promise<{ url: string, port: number, stop(): Promise<void> } | undefined>}
 *   undefined when something listens there already: most likely a broker
 */
async function startBroker(port = 1883, host = '127.0.0.1') {
  const aedes = await Aedes.createBroker();
  const server = net.createServer(aedes.handle);
  try {
    await new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, () => resolve(undefined));
    });
  } catch (error) {
    aedes.close();
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'EADDRINUSE') return undefined;
    throw error;
  }
  const bound = /** @type {import('node:net').AddressInfo} */ (server.address()).port;
  return {
    port: bound,
    url: `mqtt://${host}:${bound}`,
    stop: () => new Promise((resolve) => aedes.close(() => server.close(() => resolve()))),
  };
}

module.exports = { startBroker };
