'use strict';
// A failed assert.ok without a message makes Node parse the test's source to quote it, and on a file that was compiled to one
// line that takes minutes, in which no timeout counts. The stack says where it was.
const assert = require('node:assert');

for (const kind of [assert, assert.strict]) {
  const { ok } = kind;
  kind.ok = (value, message = 'The value is not truthy: see the stack for the place') => ok(value, message);
}
