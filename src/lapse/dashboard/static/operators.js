// Whatever this script does is also possible without it: it saves page loads.
"use strict";
const pick = (selector, within = document) => within.querySelector(selector);

// A server that takes longer than this does not answer.
const asked = (address, how = {}) => fetch(address, { ...how, signal: AbortSignal.timeout(10000) });

// The numbers refresh while the page is visible; a note says when that fails.
const live = pick("#live"), stale = pick("#stale");
let asking = false;
async function refresh() {
  if (!live || document.hidden || asking) return;
  asking = true;
  let fine = false;
  try {
    const answer = await asked(live.dataset.from, { redirect: "manual" });
    const ended = answer.type === "opaqueredirect" || answer.status === 404; // the log-in has
    if (ended) return location.reload();
    fine = answer.ok;
    if (fine) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
      const open = pick("details", live)?.open, focused = document.activeElement?.id;
      const shown = pick("#chart", live)?.dataset.shown;
      live.replaceChildren(...fresh.childNodes);
      if (open && pick("details", live)) pick("details", live).open = true;
      if (shown) show(Number(shown));
      if (focused && live.querySelector(`#${CSS.escape(focused)}`)) {
        document.getElementById(focused).focus({ preventScroll: true });
      }
    }
  } catch { /* the note says so */ } finally {
    asking = false;
  }
  stale.hidden = fine;
  live.classList.toggle("old", !fine);
}
if (live) {
  setInterval(refresh, 5000);
  document.addEventListener("visibilitychange", refresh);
}

// A bar's values, under the pointer and by the arrow keys.
function show(number) {
  const chart = pick("#chart"), slots = chart?.querySelectorAll(".slot") ?? [];
  if (!slots.length) return;
  const at = Math.max(0, Math.min(slots.length - 1, number));
  slots.forEach((slot, place) => slot.classList.toggle("shown", place === at));
  chart.dataset.shown = String(at);
  pick(".readout", chart).textContent = slots[at].dataset.words;
}
live?.addEventListener("pointerover", (event) => {
  const slot = event.target.closest(".slot");
  if (slot) show([...slot.parentNode.querySelectorAll(".slot")].indexOf(slot));
});
live?.addEventListener("keydown", (event) => {
  const chart = event.target.closest("#chart");
  if (!chart) return;
  const last = chart.querySelectorAll(".slot").length - 1;
  const now = chart.dataset.shown === "" ? last + 1 : Number(chart.dataset.shown);
  const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show(to);
});

// The list follows what is typed.
const filter = pick("form.filter"), unanswered = pick("#unanswered");
let latest = 0, timer;
async function find() {
  const mine = ++latest, query = new URLSearchParams();
  for (const [name, value] of new FormData(filter)) if (value) query.append(name, value);
  const address = `${filter.getAttribute("action")}?${query}`;
  let fine = false;
  try {
    const answer = await asked(address);
    if (mine !== latest || !answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== latest || !pick("#list", fresh)) return;
    pick("#list").replaceWith(pick("#list", fresh));
    pick(".tabs").replaceWith(pick(".tabs", fresh));
    history.replaceState(null, "", address);
    selectable();
    fine = true;
  } catch { /* the note says so */ } finally {
    if (mine === latest) unanswered.hidden = fine;
  }
}
filter?.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(find, 200);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, textarea, select")) return;
  const search = pick("input[type=search]");
  if (search) { event.preventDefault(); search.focus(); }
});

// One box selects all on the page.
function selectable() {
  const all = pick(".check.all");
  if (!all) return;
  all.hidden = false;
  pick("input", all).addEventListener("change", (event) => {
    for (const box of document.querySelectorAll("input[name=key]")) box.checked = event.target.checked;
  });
}
selectable();

// An act is asked for in place; its answer is the one page load.
const dialog = pick("#ask");
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-act]");
  if (!link || !dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { question, consequence, button } = pick(`data[value=${link.dataset.act}]`).dataset;
  const form = pick("form", dialog), row = link.closest("tr");
  form.action = link.href;
  pick("h2", dialog).textContent = question;
  pick(".id", dialog).textContent = pick(".id", row ?? document).textContent;
  pick(".consequence", dialog).textContent = consequence;
  form.elements.back.value = row ? `/lapse/sessions${location.pathname.endsWith("/sessions") ? location.search : ""}` : "";
  pick(".primary", dialog).textContent = button;
  pick(".primary", dialog).classList.toggle("grave", link.dataset.act === "delete");
  dialog.showModal();
});
