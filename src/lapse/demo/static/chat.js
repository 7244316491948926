/** The chat page: opens the session whose id is in the address, and connects all its parts. */

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
let latest = 0; // number of the latest open or read; earlier ones that end later show nothing

const addressed = () => decodeURIComponent(location.hash.slice(1));

/** Opens a session and follows its life; creates one if there is no id or no such session. */
async function open(id) {
  closeChats();
  const mine = ++latest;
  const record = id ? await adk.lifecycle(id) : null;
  if (!record) id = (await adk.create()).id;
  const session = record?.status === "used" ? await adk.read(id) : null;
  if (mine !== latest) return;
  take(id);
  conversation.show(session?.events ?? []);
  await chats.refresh(id);
}

/** Makes this session the current one of the page. */
function take(id) {
  sessionId = id;
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  chats.remember(id);
  composer.open(id);
  watch?.stop();
  watch = watchSession({ baseUrl, appName, userId, sessionId: id });
  find("notice").watch = watch;
  life.follow(watch);
  for (const kind of ["expired", "resurrected", "used", "archived", "restored", "deleted"]) {
    watch.addEventListener(kind, () => attempt(() => chats.refresh(sessionId)));
  }
  // A message was sent from another page: show it.
  watch.addEventListener("used", () => attempt(readAgain));
}

async function readAgain() {
  if (composer.isBusy) return;
  const mine = ++latest;
  const session = await adk.read(sessionId);
  if (session && mine === latest && !composer.isBusy) conversation.show(session.events);
}

async function send(text) {
  watch?.endDraft();
  composer.isBusy = true;
  let unsay = () => {};
  try {
    if (!sessionId) await open(null);
    unsay = conversation.say(text);
    await hear(text);
  } catch (error) {
    conversation.end();
    if (error instanceof LapseError) {
      unsay(); // the message did not arrive
      if (!composer.draft) composer.put(text);
    }
    conversation.fault(explained(error));
  } finally {
    conversation.end();
    composer.isBusy = false;
  }
  otherTabs.postMessage(sessionId);
  await attempt(() => chats.refresh(sessionId));
}

async function hear(text) {
  const title = { title: text.length > LONGEST_TITLE ? `${text.slice(0, LONGEST_TITLE - 1)}…` : text };
  const stateDelta = watch.record?.status === "used" ? null : title;
  try {
    for await (const event of adk.run(sessionId, text, stateDelta)) conversation.hear(event);
  } catch (error) {
    if (!(error instanceof LapseError && error.status === 404)) throw error;
    // The session was purged or deleted: send the message to a new one.
    take((await adk.create()).id);
    for await (const event of adk.run(sessionId, text, title)) conversation.hear(event);
  }
}

function explained(error) {
  if (error instanceof LapseError) return `Your message was not sent: ${error.message}. Send it again in a moment.`;
  if (error instanceof TypeError) return "The connection broke during the answer. Reload the page to see what has arrived.";
  return error.message;
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof LapseError)) throw error;
    if (!sessionId) conversation.fault(`The page could not be loaded: ${error.message}.`);
  }
}

const otherTabs = new BroadcastChannel("lapse.said");
otherTabs.addEventListener("message", ({ data }) => {
  attempt(async () => {
    if (data === sessionId) await readAgain();
    await chats.refresh(sessionId);
  });
});

// On a narrow screen the list of chats is a drawer.

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
