/** The page: one session is open, its id stands in the address, and all parts follow it. */

import { LapseError, watchSession } from "../client.js";
import { Adk } from "./adk.js";
import { Chats } from "./chats.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { Life } from "./life.js";

const LONGEST_TITLE = 60;

const find = (id) => document.getElementById(id);
const { app: appName, user: userId } = document.body.dataset;
const baseUrl = new URL(".", document.baseURI).href;
const adk = new Adk(baseUrl, appName, userId);
const chats = new Chats(find("list"), adk);
const conversation = new Conversation(find("messages"), find("scroll"), find("welcome"));
const life = new Life(find("life"), find("said"), find("link"));
const composer = new Composer(find("composer"), { onDraft: () => watch?.draft(), onSend: send });

let sessionId = null;
let watch = null;

const addressed = () => decodeURIComponent(location.hash.slice(1));

/** Open a session and follow its life; without an id, or where it is gone, a new one. */
async function open(id) {
  closeChats();
  const record = id ? await adk.lifecycle(id) : null;
  if (!record) id = (await adk.create()).id;
  const session = record?.status === "used" ? await adk.read(id) : null;
  sessionId = id;
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  chats.remember(id);
  conversation.show(session?.events ?? []);
  composer.open(id);
  follow(id);
  await chats.refresh(id);
}

function follow(id) {
  watch?.stop();
  watch = watchSession({ baseUrl, appName, userId, sessionId: id });
  find("notice").watch = watch;
  life.follow(watch);
  for (const kind of ["expired", "resurrected", "used", "deleted"]) {
    watch.addEventListener(kind, () => attempt(() => chats.refresh(sessionId)));
  }
  // Another tab spoke: show what was said there.
  watch.addEventListener("used", async () => {
    if (composer.isBusy) return;
    const session = await adk.read(id);
    if (session && id === sessionId && !composer.isBusy) conversation.show(session.events);
  });
}

async function send(text) {
  const unsay = conversation.say(text);
  composer.isBusy = true;
  try {
    await hear(text);
  } catch (error) {
    if (error instanceof LapseError || error instanceof TypeError) {
      unsay(); // it did not arrive
      if (!composer.draft) composer.put(text);
    }
    conversation.fault(explained(error));
  } finally {
    conversation.end();
    composer.isBusy = false;
  }
  await chats.refresh(sessionId).catch(() => {});
}

async function hear(text) {
  const isFirst = watch.record?.status !== "used";
  const title = { title: text.length > LONGEST_TITLE ? `${text.slice(0, LONGEST_TITLE - 1)}…` : text };
  const events = adk.run(sessionId, text, isFirst ? title : null);
  try {
    for await (const event of events) conversation.hear(event);
  } catch (error) {
    if (!(error instanceof LapseError && error.status === 404)) throw error;
    // Nobody can have it back any more: what was written begins a new one.
    const { id } = await adk.create();
    sessionId = id;
    history.replaceState(null, "", `#${encodeURIComponent(id)}`);
    chats.remember(id);
    composer.open(id);
    follow(id);
    for await (const event of adk.run(id, text, title)) conversation.hear(event);
  }
}

function explained(error) {
  if (error instanceof TypeError) return "The server cannot be reached. Your words are kept; send them again in a moment.";
  if (error instanceof LapseError) return `That was not sent: ${error.message}. Try again in a moment.`;
  return `The agent could not answer: ${error.message}`;
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof LapseError || error instanceof TypeError)) throw error;
    if (!sessionId) conversation.fault("The server cannot be reached. Reload the page in a moment.");
  }
}

// The list of chats is a drawer where the screen is narrow.

function closeChats() {
  document.body.classList.remove("with-chats");
  find("open-chats").setAttribute("aria-expanded", "false");
}

find("open-chats").addEventListener("click", () => {
  const isOpen = document.body.classList.toggle("with-chats");
  find("open-chats").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) find("new").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !document.body.classList.contains("with-chats")) return;
  closeChats();
  find("open-chats").focus();
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("#chats, #open-chats")) closeChats();
});

find("new").addEventListener("click", () => attempt(async () => {
  await open(null);
  composer.focus();
}));
for (const suggestion of find("welcome").querySelectorAll("button")) {
  suggestion.addEventListener("click", () => {
    if (!composer.isBusy) send(suggestion.textContent);
    composer.focus();
  });
}
addEventListener("hashchange", () => {
  if (addressed() !== sessionId) attempt(() => open(addressed()));
});
addEventListener("pagehide", () => watch?.stop());
addEventListener("pageshow", (event) => {
  if (event.persisted) attempt(() => open(sessionId));
});

await attempt(() => open(addressed()));
if (matchMedia("(pointer: fine)").matches) composer.focus();
