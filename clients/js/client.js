/**
 * The browser's side of Lapse: hear what becomes of one ADK session, keep it while somebody
 * types, and show a quiet notice before it closes. One module, no dependencies.
 *
 * The server is the truth. A watch keeps its record of the session, whatever brought it
 * (the stream, a poll, the answer to a request of its own), and tells what changed in it.
 */

const KINDS = /** @type {const} */ ([
  "lifecycle", "expiring", "extended", "expired", "resurrected", "used", "archiving", "archived",
  "restored", "deleted",
]);

const REQUEST_TIMEOUT = 10_000;
const FIRST_EVENT = 6_000; // a stream that brings nothing by then is held back on the way
const SHORTEST_RETRY = 1_000;
const LONGEST_RETRY = 30_000;
const POLL_EVERY = 15_000;
const POLL_FOR = 120_000; // then streaming is tried again
const DRAFT_PAUSE = 400;
const DRAFT_EVERY = 60_000;
const REPEATS = 8;
const LONGEST_WAIT = 60_000; // what a server asks for beyond that is told, not waited for
const UNANSWERED = [429, 502, 503, 504]; // Lapse's own 429 and 503, and those of proxies

/** An answer other than 2xx: `status`, and the server's sentence as the message. */
export class LapseError extends Error {
  constructor(status, detail) {
    super(detail);
    this.name = "LapseError";
    this.status = status;
  }
}

/** Watch a session until `stop()`; see `client.d.ts` for the options. */
export function watchSession(options) {
  return new SessionWatch(options);
}

/** Ask for a user's sessions, each with its record; see `client.d.ts` for the options. */
export async function listSessions({ baseUrl = location.origin, appName, userId, status,
                                     lifecycle = true, headers = {}, signal,
                                     fetch = globalThis.fetch.bind(globalThis) }) {
  const url = `${userUrl(baseUrl, appName, userId)}/sessions`;
  const query = new URLSearchParams({ lifecycle: String(lifecycle) });
  if (status !== undefined) query.set("status", [status].flat().join(","));
  const own = typeof headers === "function" ? await headers() : headers;
  const signals = [AbortSignal.timeout(REQUEST_TIMEOUT), ...(signal ? [signal] : [])];
  const response = await fetch(`${url}?${query}`, {
    headers: { Accept: "application/json", ...own }, signal: AbortSignal.any(signals), cache: "no-store",
  });
  return (await answered(response)).json();
}

/**
 * As `fetch`, for a request that must be done once: it has an Idempotency-Key, and is repeated
 * unchanged until it is answered; see `client.d.ts`.
 */
export async function fetchOnce(url, init = {}, { key = newKey(), repeats = REPEATS,
                                                  fetch = globalThis.fetch.bind(globalThis) } = {}) {
  const headers = new Headers(init.headers);
  headers.set("Idempotency-Key", key);
  for (let attempt = 0; ; attempt += 1) {
    let response = null;
    let fault = null;
    try {
      response = await fetch(url, { ...init, headers });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      fault = error;
    }
    if (response && !UNANSWERED.includes(response.status)) return response;
    const wait = pauseBefore(attempt, response);
    if (attempt >= repeats || wait > LONGEST_WAIT) {
      if (response) return response;
      throw fault;
    }
    await pause(wait, init.signal);
  }
}

/** Post a message once, and start its run; see `client.d.ts` for the options. */
export function sendMessage({ sessionId, message, stateDelta, ifBusy, ...options }) {
  const path = `/${encodeURIComponent(needed({ sessionId }))}/run`;
  return postOnce(path, { message: needed({ message }), stateDelta, ifBusy }, options);
}

/** Create a session once; see `client.d.ts` for the options. */
export function createSession({ sessionId, state, options: given, ...options }) {
  return postOnce("", { sessionId, state, options: given }, options);
}

async function postOnce(path, body, { baseUrl = location.origin, appName, userId, headers = {},
                                      key, repeats, signal, fetch }) {
  const own = typeof headers === "function" ? await headers() : headers;
  const response = await fetchOnce(`${userUrl(baseUrl, appName, userId)}/sessions${path}`, {
    method: "POST",
    headers: { Accept: "application/json", "Content-Type": "application/json", ...own },
    body: JSON.stringify(body),
    signal,
  }, { key, repeats, fetch });
  return (await answered(response)).json();
}

/** `crypto.randomUUID` is missing on pages without TLS. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");
}

/** Milliseconds: what the server asks for, or longer with each attempt; never the same for all. */
function pauseBefore(attempt, response) {
  const asked = Number(response?.headers.get("Retry-After")) * 1_000;
  const least = asked > 0 ? asked : Math.min(LONGEST_RETRY, SHORTEST_RETRY / 2 * 2 ** attempt);
  return least * (1 + 0.5 * Math.random());
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const ended = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", ended);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", ended, { once: true });
    if (signal?.aborted) ended();
  });
}

/** Return the only value of an object; a TypeError with its name if it is no text or empty. */
function needed(named) {
  const [[name, value]] = Object.entries(named);
  if (typeof value !== "string" || !value) throw new TypeError(`${name} is needed`);
  return value;
}

/** Where ADK's routes of one user are. */
function userUrl(baseUrl, appName, userId) {
  for (const [name, value] of Object.entries({ appName, userId })) {
    if (typeof value !== "string" || !value) throw new TypeError(`${name} is needed`);
  }
  const base = String(baseUrl).replace(/\/+$/, "");
  return `${base}/apps/${encodeURIComponent(appName)}/users/${encodeURIComponent(userId)}`;
}

/** Return an answer, or throw what the server says instead. */
async function answered(response) {
  if (response.ok) return response;
  const detail = (await response.json().catch(() => null))?.detail;
  throw new LapseError(response.status, typeof detail === "string" ? detail : `HTTP ${response.status}`);
}

export class SessionWatch extends EventTarget {
  record = null;
  archivesAt = null; // when a retention policy archives it, as the stream has told
  connection = "connecting";

  #url;
  #headers;
  #fetch;
  #warn;
  #silence;
  #retry = SHORTEST_RETRY;
  #clock = 0; // the server's time minus this browser's
  #warnedOf = null; // the deadline that a warning was given of
  #lastEventId = "";
  #pollUntil = 0;
  #asked = 0; // requests of this watch that changed something
  #ended = new AbortController();
  #attempt = new AbortController();
  #wake = () => {};
  #draftTimer = null;
  #draftedAt = -Infinity;
  #limit = null; // a deadline that could not be extended

  constructor({ baseUrl = location.origin, appName, userId, sessionId, headers = {},
                fetch = globalThis.fetch.bind(globalThis), warnMinutes = 5, heartbeatSeconds = 15,
                ...callbacks }) {
    super();
    if (typeof sessionId !== "string" || !sessionId) throw new TypeError("sessionId is needed");
    const session = encodeURIComponent(sessionId);
    this.#url = `${userUrl(baseUrl, appName, userId)}/sessions/${session}/lifecycle`;
    this.#headers = typeof headers === "function" ? headers : () => headers;
    this.#fetch = fetch;
    this.#warn = warnMinutes * 60_000;
    this.#silence = heartbeatSeconds * 3_000; // three heartbeats were missed
    for (const kind of [...KINDS, "connection", "error"]) {
      const callback = callbacks[`on${kind[0].toUpperCase()}${kind.slice(1)}`];
      if (callback) this.addEventListener(kind, (event) => callback(event.detail));
    }
    const { signal } = this.#ended;
    document.addEventListener("visibilitychange", () => this.#resume(), { signal });
    addEventListener("online", () => this.#wake(), { signal });
    // Callbacks and listeners that are set in this turn hear of everything.
    queueMicrotask(() => this.#watch());
  }

  /** The server's time in milliseconds, as well as it is known here. */
  now() {
    return Date.now() + this.#clock;
  }

  /** Milliseconds until the deadline; null where there is none. */
  get timeLeft() {
    const { status, expiresAt } = this.record ?? {};
    return status === "waiting" && expiresAt ? Math.max(0, Date.parse(expiresAt) - this.now()) : null;
  }

  /** Whether the session waits and its end was announced. */
  get isExpiring() {
    return this.record?.status === "waiting" && this.#warnedOf === this.record.expiresAt;
  }

  /** Whether the session expired or was archived, and can still be had back. */
  get isRestorable() {
    const { status, restorableUntil } = this.record ?? {};
    return status === "archived" || (status === "expired" && this.now() < Date.parse(restorableUntil));
  }

  /**
   * Somebody is typing: call it with every key. The deadline moves on soon after, then at most
   * once a minute (oftener only where the TTL is under three), up to the horizon.
   */
  draft() {
    const { status, expiresAt, ttlMinutes } = this.record ?? {};
    if (this.#draftTimer !== null || status !== "waiting" || expiresAt === this.#limit) return;
    const every = Math.min(DRAFT_EVERY, ttlMinutes * 60_000 / 3);
    const wait = Math.max(Math.min(DRAFT_PAUSE, every), this.#draftedAt + every - Date.now());
    this.#draftTimer = setTimeout(async () => {
      this.#draftTimer = null;
      if (this.record?.status !== "waiting") return;
      try {
        this.#draftedAt = Date.now();
        await this.extend();
      } catch (error) {
        this.#draftedAt = -Infinity;
        this.#tell("error", error);
      }
    }, wait);
  }

  /** What was typed was sent, or thrown away: it need not keep the session any more. */
  endDraft() {
    clearTimeout(this.#draftTimer);
    this.#draftTimer = null;
  }

  /** Give a waiting session a fresh TTL from now; resolves to its record. */
  async extend() {
    const before = this.record?.expiresAt;
    const record = await this.#change("/extend");
    this.#limit = record.expiresAt === before ? before : null;
    return record;
  }

  /** Bring an expired or archived session back; a living one stays as it is. Resolves to its record. */
  resurrect() {
    return this.#change("/resurrect");
  }

  /** Ask for the record now. */
  async refresh() {
    const asked = this.#asked;
    const record = await this.#json("");
    if (asked === this.#asked) this.#take(record);
    return this.record;
  }

  /** Hear no more. */
  stop() {
    this.endDraft();
    this.#ended.abort();
    this.#attempt.abort();
    this.#wake();
  }

  // Requests.

  async #request(path, { method = "GET", signal, accept = "application/json", more = {} } = {}) {
    const headers = { Accept: accept, ...(await this.#headers()), ...more };
    return answered(await this.#fetch(this.#url + path, { method, headers, signal, cache: "no-store" }));
  }

  async #json(path, method = "GET", ended = this.#ended.signal) {
    const signal = AbortSignal.any([ended, AbortSignal.timeout(REQUEST_TIMEOUT)]);
    return (await this.#request(path, { method, signal })).json();
  }

  async #change(path) {
    try {
      const record = await this.#json(path, "POST");
      this.#asked += 1;
      this.#take(record);
      return record;
    } catch (error) {
      // It is not what it was taken for: see what it is.
      if (error instanceof LapseError && [404, 409].includes(error.status)) {
        await this.refresh().catch((fault) => this.#lost(fault));
      }
      throw error;
    }
  }

  // What is known, and what is told.

  #take(record) {
    const before = this.record;
    this.record = record;
    if (record.serverTime) this.#clock = Date.parse(record.serverTime) - Date.now();
    this.#tell("lifecycle", { kind: "lifecycle", record });
    for (const kind of changes(before, record)) this.#tell(kind, { kind, record });
  }

  #warnOf(timeLeftSeconds) {
    const { record } = this;
    if (record?.status !== "waiting" || this.#warnedOf === record.expiresAt) return;
    this.#warnedOf = record.expiresAt;
    this.#tell("expiring", { kind: "expiring", record, timeLeftSeconds });
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  #connected(connection) {
    if (this.connection === connection) return;
    this.connection = connection;
    this.#tell("connection", connection);
  }

  /** Tell of a fault; of a session that is not there, once and for all. */
  #lost(error) {
    if (this.#ended.signal.aborted) return;
    if (error instanceof LapseError && error.status === 404) {
      const last = this.record;
      this.record = null;
      this.stop();
      this.#tell("deleted", { kind: "deleted", record: last });
    } else {
      this.#tell("error", error);
    }
  }

  // Listening: by stream, by polling where streams do not come through, not at all while hidden.

  #resume() {
    if (document.hidden) this.#attempt.abort();
    else this.#wake();
  }

  #sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => (clearTimeout(timer), resolve());
    });
  }

  async #watch() {
    let failures = 0;
    while (!this.#ended.signal.aborted) {
      if (document.hidden) {
        this.#connected("paused");
        await this.#sleep(LONGEST_RETRY);
        continue;
      }
      this.#attempt = new AbortController();
      let heard = false;
      try {
        if (Date.now() < this.#pollUntil) {
          await this.#poll();
          heard = true;
        } else {
          heard = await this.#stream();
        }
      } catch (error) {
        heard = await this.#failed(error, failures);
      }
      if (this.#attempt.signal.aborted) continue;
      // Only a stream tells that a used session will be archived; nothing else happens to it soon.
      if (this.record?.status === "used" && this.connection === "polling") break;
      failures = heard ? 0 : failures + 1;
      if (this.connection === "polling" && heard) await this.#sleep(this.#untilNextPoll());
      else await this.#sleep(backoff(this.#retry, failures));
    }
    this.#connected("stopped");
  }

  /** Read the stream to its end; return whether it brought anything. */
  async #stream() {
    const closing = new AbortController();
    const signal = AbortSignal.any([this.#attempt.signal, closing.signal]);
    const more = this.#lastEventId ? { "Last-Event-ID": this.#lastEventId } : {};
    const asked = this.#request("/events", { signal, accept: "text/event-stream", more });
    let heard = false;
    try {
      const opened = await within(FIRST_EVENT, asked);
      for await (const event of serverSentEvents(opened, () => (heard ? this.#silence : FIRST_EVENT))) {
        if (event.id !== undefined) this.#lastEventId = event.id;
        if (event.retry) this.#retry = event.retry;
        if (!event.data) continue;
        heard = true;
        this.#connected("live");
        this.#receive(event.event, JSON.parse(event.data));
      }
      if (!heard) throw new Error("the stream ended before its first event");
    } catch (error) {
      if (!heard) throw error;
    } finally {
      closing.abort();
      asked.catch(() => {});
    }
    if (!this.#attempt.signal.aborted) this.#connected("connecting");
    return true;
  }

  #receive(kind, data) {
    if (kind === "deleted") {
      this.#lost(new LapseError(404, "deleted"));
      return;
    }
    if (!KINDS.includes(kind)) return;
    const { timeLeftSeconds, archivesAt = null, ...record } = data;
    this.archivesAt = archivesAt;
    this.#take(record);
    if (kind === "expiring") this.#warnOf(timeLeftSeconds);
    if (kind === "archiving" && archivesAt !== this.#warnedOf) {
      this.#warnedOf = archivesAt;
      this.#tell("archiving", { kind, record, timeLeftSeconds, archivesAt });
    }
  }

  async #poll() {
    this.#connected("polling");
    const asked = this.#asked;
    const record = await this.#json("", "GET", this.#attempt.signal);
    if (asked === this.#asked) this.#take(record);
    const left = this.timeLeft;
    if (left !== null && left <= this.#warning) this.#warnOf(left / 1000);
  }

  /** How long before the deadline the warning is due, by the server's own rule. */
  get #warning() {
    return Math.min(this.#warn, this.record.ttlMinutes * 60_000 / 2);
  }

  #untilNextPoll() {
    const left = this.timeLeft;
    const instants = left === null ? [] : [left - this.#warning, left];
    const next = Math.min(POLL_EVERY, ...instants.filter((wait) => wait > 0).map((wait) => wait + 50));
    return next === POLL_EVERY ? next * (0.8 + 0.4 * Math.random()) : next;
  }

  /** After a fault: if only streams fail, poll. Return whether the server answered. */
  async #failed(error, failures) {
    if (this.#ended.signal.aborted || this.#attempt.signal.aborted) return false;
    const isDown = error instanceof TypeError && failures < 2; // fetch's word for no connection
    try {
      if (isDown || Date.now() < this.#pollUntil) throw error;
      await this.#poll();
      this.#pollUntil = Date.now() + POLL_FOR;
      return true;
    } catch (fault) {
      this.#connected("connecting");
      if (!this.#attempt.signal.aborted) this.#lost(fault);
      return false;
    }
  }
}

/** What happened between two records of a session. */
function changes(before, after) {
  if (!before) return [];
  const told = [];
  if (before.status === "archived" && after.status === "used") return ["restored"];
  const isBack = after.resurrections > before.resurrections
    || (before.status === "expired" && after.status !== "expired");
  if (isBack) told.push("resurrected");
  if (before.status !== after.status && ["used", "expired", "archived"].includes(after.status)) {
    told.push(after.status);
  }
  if (!isBack && before.status === "waiting" && after.status === "waiting"
      && after.expiresAt !== before.expiresAt) told.push("extended");
  return told;
}

function backoff(shortest, failures) {
  const longest = Math.min(LONGEST_RETRY, shortest * 2 ** Math.max(0, failures - 1));
  return longest * (0.5 + 0.5 * Math.random());
}

async function within(milliseconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came in ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/**
 * Read server-sent events from a response. `patience()` is how many milliseconds may pass
 * without a byte before it gives up with an error.
 */
export async function* serverSentEvents(response, patience = () => 2 ** 31 - 1) {
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    throw new Error("the answer is no stream of events");
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let event = {};
  try {
    for (;;) {
      const { done, value } = await within(patience(), reader.read());
      if (done) return;
      const lines = (held + value).split(/\r\n|\n|\r(?!$)/);
      held = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (Object.keys(event).length) yield event;
          event = {};
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") event.data = event.data === undefined ? text : `${event.data}\n${text}`;
        else if (field === "retry") event.retry = /^\d+$/.test(text) ? Number(text) : undefined;
        else if (field === "id" || field === "event") event[field] = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// The notice.

const IN_SECONDS = 90_000; // so near the end that minutes will not do

const TEXTS = {
  closing: "This chat closes in {time}",
  keep: "Keep it",
  kept: "This chat stays open for {time}",
  limit: "It cannot be kept open any longer. Say something to keep it for good.",
  closed: "This chat was set aside",
  restore: "Bring it back",
  restored: "This chat is back",
  failed: "That did not work. Try again.",
};

const STYLE = `
  :host {
    --background: var(--lapse-notice-background, light-dark(#fff6e5, #33291a));
    --text: var(--lapse-notice-text, light-dark(#4a3305, #fbe7c3));
    --border: var(--lapse-notice-border, light-dark(#ecd3a2, #5d4a2a));
    --accent: var(--lapse-notice-accent, light-dark(#7a4b00, #ffd38a));
    --on-accent: var(--lapse-notice-on-accent, light-dark(#fff, #2a1c04));
    display: block; font: inherit;
  }
  :host([hidden]) { display: none; }
  [part=notice] {
    display: flex; flex-wrap: wrap; align-items: center; gap: .375em .75em;
    padding: .5em .5em .5em 1em; border: 1px solid var(--border); border-radius: .875em;
    background: var(--background); color: var(--text); font-variant-numeric: tabular-nums;
  }
  [part=notice][hidden] { display: none; }
  [part=text] { flex: 1 1 12em; margin: 0; }
  [part=button] {
    font: inherit; font-weight: 600; min-height: 2.5em; padding: .25em 1em; cursor: pointer;
    border: 0; border-radius: .625em; background: var(--accent); color: var(--on-accent);
  }
  [part=button]:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
  [part=button][aria-disabled=true] { opacity: .7; cursor: progress; }
  [role=status] {
    position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
    white-space: nowrap;
  }
  @media (prefers-reduced-motion: no-preference) {
    [part=notice] { animation: appear .25s ease-out; }
    @keyframes appear { from { opacity: 0; transform: translateY(.375em); } }
  }
`;

/**
 * `<lapse-notice>`: what a person should know of the session's end, and the way out of it.
 * Set its `watch`, or the attributes `app-name`, `user-id` and `session-id` (and `base-url`).
 */
class LapseNotice extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = ["app-name", "user-id", "session-id", "base-url"];

  #watch = null;
  #isOwn = false; // made from the attributes, so ended here
  #listening = new AbortController();
  #timer = null;
  #shown = ""; // "closing", "closed" or nothing
  #isBusy = false;
  #isLimit = false;
  #announcedLast = false;
  #cameFrom = null;
  #box = element("div", { part: "notice", hidden: "" });
  #text = element("p", { part: "text" });
  #button = element("button", { part: "button", type: "button" });
  #status = element("div", { role: "status" }); // polite, and there before it speaks

  constructor() {
    super();
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    root.adoptedStyleSheets = [style];
    this.#box.append(this.#text, this.#button);
    root.append(this.#box, this.#status);
    this.#button.addEventListener("click", () => this.#act());
    this.#button.addEventListener("focus", (event) => {
      this.#cameFrom = event.relatedTarget ?? this.#cameFrom;
    });
  }

  get watch() {
    return this.#watch;
  }

  set watch(watch) {
    this.#leave();
    this.#watch = watch;
    if (watch && this.isConnected) this.#enter();
  }

  connectedCallback() {
    if (this.#watch) this.#enter();
    else this.#watchByAttributes();
  }

  disconnectedCallback() {
    const isOwn = this.#isOwn;
    this.#leave();
    if (isOwn) this.#watch = null;
  }

  attributeChangedCallback(_name, before, after) {
    if (this.isConnected && before !== after && (this.#isOwn || !this.#watch)) {
      this.#watchByAttributes();
    }
  }

  #watchByAttributes() {
    const [appName, userId, sessionId, baseUrl] = LapseNotice.observedAttributes
      .map((name) => this.getAttribute(name) || undefined);
    if (!appName || !userId || !sessionId) return;
    this.watch = watchSession({ appName, userId, sessionId, baseUrl });
    this.#isOwn = true;
  }

  #enter() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    for (const kind of ["lifecycle", "expiring", "deleted"]) {
      this.#watch.addEventListener(kind, () => this.#render(), { signal });
    }
    this.#render();
  }

  #leave() {
    this.#listening.abort();
    clearTimeout(this.#timer);
    if (this.#isOwn) this.#watch?.stop();
    this.#isOwn = false;
    this.#show("");
  }

  #say(name) {
    const time = name === "closing" || name === "kept" ? this.#time() : "";
    return (this.getAttribute(name) ?? TEXTS[name]).replace("{time}", time);
  }

  /** The time left in the language of the page: minutes, and near the end seconds. */
  #time() {
    const seconds = Math.ceil((this.#watch.timeLeft ?? 0) / 1000);
    const [value, unit] = seconds * 1000 > IN_SECONDS ? [Math.ceil(seconds / 60), "minute"] : [seconds, "second"];
    const language = this.closest("[lang]")?.lang || undefined;
    return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "long" }).format(value);
  }

  #render() {
    clearTimeout(this.#timer);
    const { isExpiring, isRestorable, timeLeft } = this.#watch;
    this.#show(isExpiring ? "closing" : isRestorable ? "closed" : "");
    if (!isExpiring) return;
    if (timeLeft <= 60_000 && !this.#announcedLast) {
      this.#announcedLast = true;
      this.#announce("closing");
    }
    // It reads differently at the next whole minute, near the end at the next second.
    const wait = timeLeft > IN_SECONDS
      ? Math.min(timeLeft % 60_000 || 60_000, timeLeft - IN_SECONDS)
      : timeLeft % 1_000 || 1_000;
    if (timeLeft > 0) this.#timer = setTimeout(() => this.#render(), wait);
  }

  #show(what) {
    const before = this.#shown;
    this.#shown = what;
    if (before !== what) {
      this.#isLimit = false;
      this.#announcedLast = false;
      this.dispatchEvent(new CustomEvent("notice", { detail: what || null }));
    }
    if (what) {
      this.#text.textContent = this.#isLimit ? this.#say("limit") : this.#say(what);
      this.#button.textContent = this.#say(what === "closing" ? "keep" : "restore");
      this.#button.hidden = this.#isLimit;
      if (before !== what) this.#announce(what);
    }
    // Whoever pressed the button goes on where they were.
    if (!what && this.shadowRoot.activeElement === this.#button) this.#cameFrom?.focus();
    this.#box.hidden = !what;
  }

  #announce(name) {
    this.#status.textContent = this.#say(name);
  }

  async #act() {
    if (this.#isBusy || !this.#shown) return;
    const isKeep = this.#shown === "closing";
    this.#busy(true);
    try {
      await (isKeep ? this.#watch.extend() : this.#watch.resurrect());
      if (isKeep && this.#watch.isExpiring) {
        this.#isLimit = true;
        this.#cameFrom?.focus();
        this.#show("closing");
        this.#announce("limit");
      } else {
        this.#announce(isKeep ? "kept" : "restored");
      }
    } catch {
      // Had it changed meanwhile, the notice says by now what it is.
      if (this.#shown === (isKeep ? "closing" : "closed")) {
        this.#text.textContent = this.#say("failed");
        this.#announce("failed");
      }
    } finally {
      this.#busy(false);
    }
  }

  #busy(isBusy) {
    this.#isBusy = isBusy;
    this.#button.setAttribute("aria-disabled", String(isBusy));
  }
}

function element(name, attributes) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

if (globalThis.customElements && !customElements.get("lapse-notice")) {
  customElements.define("lapse-notice", LapseNotice);
}
