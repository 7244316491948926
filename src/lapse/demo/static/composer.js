/** The text field of a message: Enter sends, and a draft survives a reload. */

export class Composer {
  #form;
  #text;
  #key = null;

  constructor(form, { onDraft, onSend }) {
    this.#form = form;
    this.#text = form.querySelector("textarea");
    this.#text.addEventListener("input", () => {
      this.#keep();
      if (this.#text.value) onDraft();
    });
    this.#text.addEventListener("keydown", (event) => {
      // On a touch screen Enter makes a new line; the button sends.
      const isTouch = matchMedia("(pointer: coarse)").matches;
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || isTouch) return;
      event.preventDefault();
      form.requestSubmit();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const said = this.#text.value.trim();
      if (!said || this.isBusy) return;
      this.put("");
      onSend(said);
    });
  }

  get isBusy() {
    return this.#form.getAttribute("aria-busy") === "true";
  }

  set isBusy(isBusy) {
    this.#form.setAttribute("aria-busy", String(isBusy));
  }

  /** Switches to a session and restores its draft. */
  open(sessionId) {
    this.#key = `lapse.draft.${sessionId}`;
    this.#text.value = sessionStorage.getItem(this.#key) ?? "";
  }

  put(text) {
    this.#text.value = text;
    this.#keep();
  }

  get draft() {
    return this.#text.value;
  }

  focus() {
    this.#text.focus();
  }

  #keep() {
    if (!this.#key) return;
    if (this.#text.value) sessionStorage.setItem(this.#key, this.#text.value);
    else sessionStorage.removeItem(this.#key);
  }
}
