// Numbers refresh in place while somebody can see them; the page says so when they no longer do.
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
