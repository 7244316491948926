// Refreshes the numbers while the page is visible, and shows a note when that fails.
const live = document.getElementById("live");
const stale = document.getElementById("stale");
let open = false;

live.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) htmx.trigger(live, "seen");
});
live.addEventListener("htmx:beforeSwap", () => {
  open = live.querySelector("details")?.open ?? open;
});
live.addEventListener("htmx:afterSwap", () => {
  const table = live.querySelector("details");
  if (table) table.open = open;
});
live.addEventListener("htmx:afterRequest", (event) => {
  stale.hidden = event.detail.successful;
  live.classList.toggle("old", !event.detail.successful);
});
