/** Shows the life of the session: a ring for the time left, a sentence and the history. */

import { make } from "./dom.js";

const SHOWN = {
  waiting: ["Waiting", "There is no message yet. Send one and the chat is kept."],
  used: ["Kept", "The chat has a message and is kept for good."],
  expired: ["Set aside", "No message came in time."],
  archived: ["Set aside", "It was not used for long. A message brings it back."],
  orphan: ["Waiting", "This chat has no deadline."],
  gone: ["Gone", "This chat does not exist any more. A message starts a new one."],
};
const HAPPENED = {
  expiring: "closes soon",
  extended: "deadline moved on",
  expired: "set aside",
  resurrected: "brought back",
  used: "first message: kept for good",
  archiving: "set aside soon, unless it is used",
  archived: "set aside",
  restored: "brought back",
  deleted: "gone",
};

export class Life {
  #root;
  #watch = null;
  #listening = new AbortController();
  #timer = null;

  constructor(root, said, link) {
    this.#root = root;
    this.said = said;
    this.link = link;
    root.querySelector("details").open = matchMedia("(min-width: 72rem)").matches;
  }

  follow(watch) {
    this.#listening.abort();
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    this.#watch = watch;
    this.#find("past").replaceChildren();
    let isFirst = true;
    watch.addEventListener("lifecycle", ({ detail: { record } }) => {
      if (isFirst) this.#begin(record);
      isFirst = false;
      this.#render();
    }, { signal });
    for (const kind of Object.keys(HAPPENED)) {
      watch.addEventListener(kind, () => {
        this.#note(new Date(watch.now()), HAPPENED[kind]);
        if (kind !== "expiring" && kind !== "extended") this.said.textContent = `Session ${HAPPENED[kind]}.`;
        this.#render();
      }, { signal });
    }
    watch.addEventListener("connection", ({ detail }) => this.#connected(detail), { signal });
  }

  #begin(record) {
    this.#note(new Date(record.createdAt), "opened");
    if (record.resurrections) this.#note(null, `brought back ${record.resurrections} ×`);
    if (record.firstMessageAt) this.#note(new Date(record.firstMessageAt), HAPPENED.used);
    if (record.expiredAt) this.#note(new Date(record.expiredAt), HAPPENED.expired);
  }

  #connected(connection) {
    const words = { connecting: "Connecting…", polling: "Live, by polling", live: "Live", paused: "Paused" };
    this.link.textContent = words[connection] ?? "";
    this.link.dataset.state = connection;
  }

  #render() {
    clearTimeout(this.#timer);
    const { record, timeLeft, isExpiring } = this.#watch;
    const status = record?.status ?? "gone";
    this.#root.dataset.status = isExpiring ? "expiring" : status;
    const [title, sentence] = SHOWN[status];
    this.#put("status", isExpiring ? "Closes soon" : title);
    this.#put("sentence", status === "expired" && record.restorableUntil
      ? `${sentence} You can bring it back until ${whenever(record.restorableUntil)}.` : sentence);
    this.#put("clock", status === "waiting" && timeLeft !== null ? clock(timeLeft) : "");
    const whole = (record?.ttlMinutes ?? 0) * 60_000;
    const share = status === "waiting" && whole ? Math.min(1, timeLeft / whole) : Number(status === "used");
    this.#root.querySelector(".left").setAttribute("stroke-dashoffset", String(1 - share));
    if (timeLeft > 0) this.#timer = setTimeout(() => this.#render(), timeLeft % 1000 || 1000);
  }

  #note(moment, words) {
    const time = moment
      ? make("time", { dateTime: moment.toISOString(), textContent: moment.toLocaleTimeString() })
      : make("time", { textContent: "earlier" });
    this.#find("past").prepend(make("li", {}, time, make("span", { textContent: words })));
  }

  #find(name) {
    return this.#root.querySelector(`#life-${name}`);
  }

  #put(name, text) {
    const place = this.#find(name);
    if (place.textContent !== text) place.textContent = text;
  }
}

function clock(milliseconds) {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)}`;
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function whenever(moment) {
  return new Date(moment).toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
}
