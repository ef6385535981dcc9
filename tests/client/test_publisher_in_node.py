"""What only the publisher in Node has to guard against: JavaScript's values that a message can't hold."""

from __future__ import annotations

import subprocess

import pytest

from tests.client.speakers import CLIENT, built

# The first test of a language builds it.
pytestmark = [pytest.mark.publishers, pytest.mark.timeout(180)]

SCRIPT = """
import { strict as assert } from "node:assert";
import { runInNewContext } from "node:vm";
import { memoryBound } from "./events.js";
const said = (content) => memoryBound("Ada", { messages: [{ role: "user", content }] }).messages[0].content;
const nested = (levels) => (levels ? [nested(levels - 1)] : "x");
const pairs = (count) => Object.fromEntries(Array.from({ length: count }, (_, number) => [`key ${number}`, null]));
const foreign = runInNewContext("({ text: 'from another realm' })");
for (const fine of ["Zoë", 1.5, true, null, [1, { a: [] }], Object.create(null), foreign, pairs(1024), nested(30)]) {
  assert.deepEqual(JSON.stringify(said(fine)), JSON.stringify(fine));
}
const odd = [
  "\\ud800", { "\\ud800": 1 }, NaN, 1n, () => 1, Buffer.from("x"), new Date(0), new Map(), pairs(1025), nested(31),
];
for (const value of odd) assert.throws(() => said(value), /messages/);
assert.throws(() => memoryBound("Ada", { messages: "Hello" }), TypeError);
assert.throws(() => memoryBound("Ada", { messages: { role: "user" } }), TypeError);
assert.throws(() => memoryBound("Ada", { tokenIds: new Uint32Array(2 ** 20 + 1) }), RangeError);
"""


def test_what_a_message_cannot_hold_is_refused() -> None:
    built("node")
    command = ["node", "--input-type=module", "-e", SCRIPT]
    done = subprocess.run(command, cwd=CLIENT / "node", capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stderr) == (0, "")
