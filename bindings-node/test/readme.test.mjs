// What the READMEs open with runs as it stands.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { PACKAGE, run } from './consumer.mjs';

for (const readme of ['README.md', 'hub/README.md']) {
  test(`the first example of ${readme} runs`, (test) => {
    const found = /^```(\w+)\n(.*?)^```$/ms.exec(readFileSync(join(PACKAGE, readme), 'utf8'));
    assert.equal(found?.[1], 'js', 'it opens with an example');
    const { stderr } = run(test, 'example.mjs', found[2]);
    assert.equal(stderr, '');
  });
}

test('the README of the project shows the same example', () => {
  const [block] = /^```js\n.*?^```$/ms.exec(readFileSync(join(PACKAGE, 'README.md'), 'utf8'));
  assert.ok(readFileSync(join(dirname(PACKAGE), 'README.md'), 'utf8').includes(`${block}\n`));
});
