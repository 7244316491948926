/** The list of the user's sessions with their statuses, the most recent one first. */

import { make } from "./dom.js";

const REMEMBERED = "lapse.chats";
const MOST = 30;
const WORDS = { waiting: "waiting", used: "kept", expired: "set aside", archived: "set aside", orphan: "waiting" };

export class Chats {
  #list;
  #adk;
  #latest = 0; // number of the latest refresh; earlier ones that end later show nothing

  constructor(list, adk) {
    this.#list = list;
    this.#adk = adk;
  }

  /** Remembers a session in this browser: ADK does not list expired ones, which can be restored. */
  remember(id) {
    const kept = [id, ...remembered().filter((other) => other !== id)].slice(0, MOST);
    localStorage.setItem(REMEMBERED, JSON.stringify(kept));
  }

  async refresh(current) {
    const mine = ++this.#latest;
    const listed = new Map((await this.#adk.list()).map((session) => [session.id, session]));
    const ids = new Set([...remembered(), ...[...listed.keys()].reverse()]);
    const known = await Promise.all([...ids].slice(0, MOST).map((id) => this.#describe(id, listed.get(id))));
    if (mine !== this.#latest) return;
    const rows = known.filter(Boolean);
    localStorage.setItem(REMEMBERED, JSON.stringify(rows.map((row) => row.id)));
    rows.sort((one, other) => other.at - one.at);
    this.#list.replaceChildren(...rows.map((row) => item(row, row.id === current)));
  }

  /** Describes a session: by its title if it has a message, else by its lifecycle record. */
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
