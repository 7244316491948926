/** Where one writes: Enter sends, a draft survives a reload. */

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
      // On a phone Enter is a new line: there is a button to send with.
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

  /** Write for one session from now on; its draft is found again. */
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
