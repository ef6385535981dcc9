// Keys for a feed that other hosts reach: ZeroMQ's CURVE, from the files that `python -m scalesim_client.curve` makes.

import { readFileSync } from "node:fs";

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const KEY_CHARACTERS = 40;

/** The daemon's public key and a publisher's own pair, each as 40 characters of Z85. */
export class Curve {
  #secret; // No part of what is printed of it.

  /** @throws {RangeError} for what is no key */
  constructor(server, publicKey, secret) {
    for (const [name, key] of Object.entries({ server, public: publicKey, secret })) {
      if (!isKey(key)) throw new RangeError(`${name} is no key: it has ${KEY_CHARACTERS} characters of Z85`);
    }
    [this.server, this.public, this.#secret] = [server, publicKey, secret];
  }

  get secret() {
    return this.#secret;
  }

  /**
   * Read a publisher's `NAME.key_secret`, and the daemon's `NAME.key`.
   * @throws {Error} where a file can't be read, and RangeError where a key is missing
   */
  static load(own, server) {
    const { public: publicKey, secret } = readKeys(own);
    if (secret === undefined) throw new RangeError(`${own} holds no secret key: name the file that ends in .key_secret`);
    return new Curve(readKeys(server).public, publicKey, secret);
  }
}

function readKeys(file) {
  const keys = {};
  for (const line of readFileSync(file, "latin1").split("\n")) {
    const found = /^\s*(public|secret)-key\s*=(.*)$/.exec(line);
    if (found) keys[found[1]] = found[2].trim().replace(/^["']+|["']+$/g, "");
  }
  return keys;
}

function isKey(key) {
  if (typeof key !== "string" || key.length !== KEY_CHARACTERS) return false;
  const digits = [...key].map((character) => Z85.indexOf(character));
  if (digits.includes(-1)) return false;
  // Five digits are four bytes.
  const numbers = digits.flatMap((_, at) => (at % 5 ? [] : [digits.slice(at, at + 5).reduce((sum, digit) => sum * 85 + digit, 0)]));
  return numbers.every((number) => number < 2 ** 32);
}
