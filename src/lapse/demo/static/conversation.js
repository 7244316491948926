/** The messages of a session: all stored ones at once, and new ones as they are streamed. */

import { make } from "./dom.js";

const NEAR_END = 80; // pixels from the end within which new messages keep scrolling

export class Conversation {
  #list;
  #scroll;
  #welcome;
  #answer = null; // the element of the answer that is being streamed

  constructor(list, scroll, welcome) {
    this.#list = list;
    this.#scroll = scroll;
    this.#welcome = welcome;
  }

  show(events) {
    this.#answer = null;
    this.#list.replaceChildren();
    this.#welcome.hidden = events.some((event) => event.content?.parts?.length);
    for (const event of events) this.hear(event);
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  /** Shows an event of ADK's: partial text, whole text, a tool call or an error. */
  hear(event) {
    if (event.error) throw new Error(`The agent could not answer: ${event.error}`);
    const text = (event.content?.parts ?? []).filter((part) => !part.thought).map((part) => part.text ?? "").join("");
    this.#following(() => {
      if (event.author === "user") {
        if (text) this.#add("user", text);
        return;
      }
      if (text && event.partial) this.#words(text);
      else if (text) this.#whole(text);
      for (const { functionCall } of event.content?.parts ?? []) {
        if (functionCall) this.#add("tool", described(functionCall));
      }
    });
  }

  /** Shows the user's message before the server has it; returns a function that removes it. */
  say(text) {
    let said;
    this.#following(() => {
      this.#welcome.hidden = true;
      said = this.#add("user", text);
      this.#answer = this.#add("agent thinking", "");
      this.#list.setAttribute("aria-busy", "true");
    }, true);
    return () => {
      said.remove();
      this.#welcome.hidden = this.#list.childElementCount > 0;
    };
  }

  /** Ends the answer, whether it is complete or not. */
  end() {
    this.#list.removeAttribute("aria-busy");
    if (this.#answer && !this.#answer.textContent) this.#answer.remove();
    this.#answer?.classList.remove("thinking");
    this.#answer = null;
  }

  fault(sentence) {
    this.#following(() => this.#add("fault", sentence));
  }

  #words(text) {
    this.#answer ??= this.#add("agent", "");
    this.#answer.classList.remove("thinking");
    this.#answer.append(make("span", { textContent: text }));
  }

  #whole(text) {
    this.#answer ??= this.#add("agent", "");
    this.#answer.classList.remove("thinking");
    if (this.#answer.textContent !== text) this.#answer.textContent = text;
    this.#answer = null;
  }

  #add(kind, text) {
    const message = make("div", { className: `message ${kind}`, textContent: text });
    const before = kind === "tool" && this.#answer && !this.#answer.textContent ? this.#answer : null;
    this.#list.insertBefore(message, before);
    return message;
  }

  /** Changes the list, and keeps it scrolled to its end if it was there. */
  #following(change, always = false) {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    change();
    if (isAtEnd || always) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }
}

function described({ name, args = {} }) {
  const given = Object.entries(args).map(([key, value]) => `${key} ${value}`).join(", ");
  return `${name.replaceAll("_", " ")}${given ? ` · ${given}` : ""}`;
}
