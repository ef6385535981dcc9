// Server-sent events read from a response's body, so that the request can carry a token. Pure but for the reading.
export class Messages {
  #rest = "";

  // Yield what is complete of the text that has come so far, as `{name, data}` with data parsed.
  *read(text) {
    let search = Math.max(0, this.#rest.length - 1);
    let start = 0;
    this.#rest += text;
    for (let end; (end = this.#rest.indexOf("\n\n", search)) >= 0; start = search = end + 2) {
      const message = parse(this.#rest.slice(start, end));
      if (message) yield message;
    }
    this.#rest = this.#rest.slice(start);
  }
}

// Yield messages until the stream ends; `heard` is called with each piece that comes.
export async function* messages(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const pending = new Messages();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      yield* pending.read(value);
    }
  } finally {
    // One that broke says once more why.
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? { name, data: JSON.parse(data.join("\n")) } : null;
}
