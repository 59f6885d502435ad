// Keeps a page's live part fresh. Without script the page is the same, as of when it was asked for.
//
// The part with `data-live` is fetched again from the page's own address and put in place of the old one. It waits while the page is
// hidden, and while somebody has the keyboard, a selection or an open fold inside it. Screen readers hear the one line with
// `data-live-said`, and only when it changed.
"use strict";

(() => {
  const part = () => document.querySelector("[data-live]");
  const said = (page) => page.querySelector("[data-live-said]");
  if (!part()) return;
  const every = Number(part().dataset.live) * 1000;

  const inUse = (old) =>
    old.contains(document.activeElement) ||
    (getSelection().toString() !== "" && old.contains(getSelection().anchorNode)) ||
    old.querySelector("details[open]") !== null;

  async function refresh() {
    if (document.hidden || inUse(part())) return;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-live]");
    if (!fresh || inUse(part())) return;
    if (fresh.innerHTML !== part().innerHTML) part().replaceWith(document.adoptNode(fresh));
    if (said(page) && said(page).textContent !== said(document).textContent) {
      said(document).replaceChildren(...said(page).childNodes);
    }
  }

  // A page that went stale says so: a calm sentence of an hour ago would be worse than none.
  let asOf = new Date();
  const stale = () => {
    const time = asOf.toISOString().slice(11, 19);
    said(document).textContent = `As of ${time} UTC: control does not answer, or you were signed out. Reload the page.`;
  };
  const round = () => refresh().then(() => (asOf = document.hidden ? asOf : new Date()), stale);
  setInterval(round, every);
  document.addEventListener("visibilitychange", round);
})();
