// The one lasting connection: reads the stream, and comes back when it breaks.
import { Away, Refused, ask, request } from "./api.js";
import { messages } from "./events.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
// The daemon says something every 15 seconds, if only that it is there.
const SILENCE = 40_000;

export class Link {
  #model;
  #heard;
  #attempt = new AbortController();
  #waiting = null;
  #wait = FIRST_WAIT;
  #atOnce = false;

  // `heard` is called with each message and when it had come, in milliseconds of `performance.now`.
  constructor(model, heard) {
    this.#model = model;
    this.#heard = heard;
  }

  // Connect anew at once: with another token, or because somebody doesn't want to wait.
  again() {
    this.#wait = FIRST_WAIT;
    if (this.#waiting) {
      this.#waiting();
      return;
    }
    this.#atOnce = true;
    this.#attempt.abort(new Away("connecting anew"));
  }

  async run() {
    for (;;) {
      const attempt = (this.#attempt = new AbortController());
      try {
        await this.#listen(attempt);
        throw new Away("the stream has ended");
      } catch (error) {
        if (!(error instanceof Away || error instanceof Refused || attempt.signal.aborted)) {
          // A broken connection shows as an error of the reader's own kind.
          console.info("the stream broke:", error);
        }
        // The daemon lets few streams be open: that of a failed attempt goes.
        attempt.abort();
        await this.#pause(error);
      }
    }
  }

  async #listen(attempt) {
    const { signal } = attempt;
    let silence;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => attempt.abort(new Away("nothing was heard for 40 s")), SILENCE);
    };
    heard();
    try {
      const { role, tokens } = await ask("v1/role", { signal });
      const { version } = await ask("health", { signal });
      this.#model.set({ role, tokens, version });
      const response = await request("v1/stream", { signal });
      for await (const message of messages(response.body, heard)) {
        this.#wait = FIRST_WAIT;
        this.#heard(message, performance.now());
      }
    } finally {
      clearTimeout(silence);
    }
  }

  // Wait before the next attempt: longer each time, or where the token was refused until there is another.
  async #pause(error) {
    if (this.#atOnce) {
      this.#atOnce = false;
      this.#model.set({ link: { state: "connecting", why: "", retryAt: 0 } });
      return;
    }
    const refused = error instanceof Refused && [401, 403].includes(error.status);
    const wait = refused ? Infinity : this.#wait * (0.75 + Math.random() / 2);
    this.#wait = Math.min(LONGEST_WAIT, this.#wait * 2);
    const link = { state: refused ? "refused" : "away", why: error.message, retryAt: Date.now() + wait };
    this.#model.set({ link, ...(refused ? { role: null, tokens: true } : {}) });
    await new Promise((resume) => {
      this.#waiting = resume;
      if (wait !== Infinity) setTimeout(resume, wait);
    });
    this.#waiting = null;
  }
}
