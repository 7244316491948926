/** The routes of ADK and Lapse that a chat page needs. */

import { LapseError, serverSentEvents } from "../client.js";

export class Adk {
  #base;
  #app;
  #user;

  constructor(base, app, user) {
    this.#base = base.replace(/\/+$/, "");
    this.#app = app;
    this.#user = user;
  }

  async create() {
    return this.#json("POST", this.#sessions(), {});
  }

  /** Returns a session with its events, or null if it does not exist or has expired. */
  async read(id) {
    return this.#unlessGone(this.#json("GET", this.#sessions(id)));
  }

  async list() {
    return this.#json("GET", this.#sessions());
  }

  /** Returns the lifecycle record of a session, or null if there is none. */
  async lifecycle(id) {
    return this.#unlessGone(this.#json("GET", `${this.#sessions(id)}/lifecycle`));
  }

  /** Sends a message, and yields the events of the answer as they come. */
  async *run(id, text, stateDelta) {
    const response = await this.#ask("POST", "/run_sse", {
      appName: this.#app,
      userId: this.#user,
      sessionId: id,
      newMessage: { role: "user", parts: [{ text }] },
      streaming: true,
      ...(stateDelta && { stateDelta }),
    });
    for await (const { data } of serverSentEvents(response)) if (data) yield JSON.parse(data);
  }

  #sessions(id = "") {
    const path = `/apps/${encodeURIComponent(this.#app)}/users/${encodeURIComponent(this.#user)}/sessions`;
    return id ? `${path}/${encodeURIComponent(id)}` : path;
  }

  async #ask(method, path, body) {
    const response = await fetch(this.#base + path, {
      method,
      cache: "no-store",
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body && JSON.stringify(body),
    }).catch(unreachable);
    if (response.ok) return response;
    const detail = (await response.json().catch(() => null))?.detail;
    throw new LapseError(response.status, typeof detail === "string" ? detail : `HTTP ${response.status}`);
  }

  async #json(method, path, body) {
    const response = await this.#ask(method, path, body);
    return response.json().catch(unreachable); // a connection can break in the body, too
  }

  async #unlessGone(asked) {
    try {
      return await asked;
    } catch (error) {
      if (error instanceof LapseError && error.status === 404) return null;
      throw error;
    }
  }
}

function unreachable() {
  throw new LapseError(0, "the server cannot be reached");
}
