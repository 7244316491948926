/** The user's sessions, the most recent one first, with what has become of each. */

import { make } from "./dom.js";

const REMEMBERED = "lapse.chats";
const MOST = 30;
const WORDS = { waiting: "waiting", used: "kept", expired: "set aside", orphan: "waiting" };

export class Chats {
  #list;
  #adk;
  #turn = 0;

  constructor(list, adk) {
    this.#list = list;
    this.#adk = adk;
  }

  /** Remember a session: once it has expired ADK lists it no more, but it can be had back. */
  remember(id) {
    const kept = [id, ...remembered().filter((other) => other !== id)].slice(0, MOST);
    localStorage.setItem(REMEMBERED, JSON.stringify(kept));
  }

  async refresh(current) {
    const turn = ++this.#turn;
    const listed = new Map((await this.#adk.list()).map((session) => [session.id, session]));
    const ids = new Set([...remembered(), ...[...listed.keys()].reverse()]);
    const known = await Promise.all([...ids].slice(0, MOST).map((id) => this.#describe(id, listed.get(id))));
    if (turn !== this.#turn) return;
    const rows = known.filter(Boolean);
    localStorage.setItem(REMEMBERED, JSON.stringify(rows.map((row) => row.id)));
    rows.sort((one, other) => other.at - one.at);
    this.#list.replaceChildren(...rows.map((row) => item(row, row.id === current)));
  }

  /** A title tells that it was spoken to; of the others their record tells more. */
  async #describe(id, session) {
    const title = session?.state?.title;
    if (title) return { id, title, status: "used", at: session.lastUpdateTime * 1000 };
    const record = await this.#adk.lifecycle(id);
    if (!record) return null;
    const at = Date.parse(record.firstMessageAt ?? record.createdAt);
    return { id, title: `Opened ${opened(record.createdAt)}`, status: record.status, at };
  }
}

function item({ id, title, status }, isCurrent) {
  const link = make("a", { href: `#${encodeURIComponent(id)}` },
    make("span", { className: "title", textContent: title }),
    make("span", { className: "state", textContent: WORDS[status] }));
  link.dataset.status = status;
  if (isCurrent) link.setAttribute("aria-current", "page");
  return make("li", {}, link);
}

function opened(moment) {
  const date = new Date(moment);
  const isToday = date.toDateString() === new Date().toDateString();
  const day = isToday ? {} : { day: "numeric", month: "short" };
  return date.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" });
}

function remembered() {
  try {
    const kept = JSON.parse(localStorage.getItem(REMEMBERED) ?? "[]");
    return Array.isArray(kept) ? kept.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}
