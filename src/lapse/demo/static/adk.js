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
    return (await this.#ask("POST", this.#sessions(), {})).json();
  }

  /** Returns a session with its events, or null if it does not exist or has expired. */
  async read(id) {
    return this.#unlessGone(this.#ask("GET", this.#sessions(id)));
  }

  async list() {
    return (await this.#ask("GET", this.#sessions())).json();
  }

  /** Returns the lifecycle record of a session, or null if there is none. */
  async lifecycle(id) {
    return this.#unlessGone(this.#ask("GET", `${this.#sessions(id)}/lifecycle`));
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
    }).catch(() => {
      throw new LapseError(0, "the server cannot be reached");
    });
    if (response.ok) return response;
    const detail = (await response.json().catch(() => null))?.detail;
    throw new LapseError(response.status, typeof detail === "string" ? detail : `HTTP ${response.status}`);
  }

  async #unlessGone(asked) {
    try {
      return await (await asked).json();
    } catch (error) {
      if (error instanceof LapseError && error.status === 404) return null;
      throw error;
    }
  }
}
