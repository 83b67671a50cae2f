// Open pages renew themselves. Without this file they are the same pages, and stand still.
//
// A stream says that the store changed; then the page is asked for again, at its own address, and what differs is put
// in place. Nodes that stay are left alone: scrolling, focus, selected text, open parts and typed text belong to people.

const FEWEST = 2_000; // milliseconds between two renewals,
const SHARE = 50; //     and so many times as long as the director took: one that is busy is asked less often,
const MOST = 60_000; //  but not never.
const SLOW = 300_000; // Without any news too: backups become overdue by time passing.
const ALONE = 60_000; // Without a stream.
const PATIENCE = 15_000;

const mark = document.getElementById("live");
const notice = document.getElementById("stale");
const voice = document.getElementById("voice");
const main = document.getElementById("main");

let paused = remembered() === "yes";
let stream = null;
let version = performance.getEntriesByType("navigation")[0]?.serverTiming?.find(({ name }) => name === "store")?.description;
let tag = null;
let busy = false;
let again = false;
let failures = 0;
let timer = 0;
let due = Infinity;
let earliest = 0;
let renewed = performance.now();
let ahead = 0; // of our clock, the director's

// --- When -----------------------------------------------------------------------------------------------------------

const jittered = (time) => time * (0.75 + Math.random() / 2);

function plan(wait) {
  const at = Math.max(performance.now() + wait, earliest);
  if (paused || document.hidden || at >= due) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(renew, at - performance.now());
}

function rest() {
  clearTimeout(timer);
  due = Infinity;
  stream?.close();
  stream = null;
}

function listen() {
  if (stream || paused || document.hidden) return;
  const here = (stream = new EventSource("/live"));
  here.addEventListener("changed", (event) => {
    if (event.lastEventId === version) return;
    version = event.lastEventId;
    plan(Math.random() * 1_000);
  });
  here.addEventListener("error", () => {
    plan(jittered(FEWEST)); // This finds out whether anybody answers.
    if (here.readyState === EventSource.CLOSED && stream === here) {
      stream = null; // Refused: too many are listening, or a stranger answered.
      setTimeout(listen, jittered(ALONE));
    }
  });
}

function goOn() {
  if (paused || document.hidden) return rest();
  listen();
  plan(performance.now() - renewed > ALONE || failures ? 0 : jittered(SLOW));
}

async function renew() {
  due = Infinity;
  again = busy;
  if (busy || paused || document.hidden) return;
  busy = true;
  let took = 0;
  try {
    const answer = await fetch(location.href, { cache: "no-cache", signal: AbortSignal.timeout(PATIENCE) });
    if (answer.redirected || answer.status === 401) return location.reload(); // Somebody has to log in again.
    const wasWrong = main.querySelector(".card.error"); // Then this page says itself what is wrong.
    if (!answer.ok && !wasWrong) fail(answer.status === 404 ? "This is not there any more" : `The director answers ${answer.status}`);
    else {
      if (!tag || tag !== answer.headers.get("ETag")) put(await answer.text());
      tag = answer.headers.get("ETag");
      const said = /store;desc="([^"]*)";dur=([\d.]+)/.exec(answer.headers.get("Server-Timing"));
      if (said) [version, took] = [said[1], Number(said[2])];
      renewed = performance.now();
      recover();
    }
  } catch {
    if (!paused && !document.hidden) fail("The director does not answer");
  } finally {
    busy = false;
    earliest = performance.now() + jittered(Math.min(Math.max(FEWEST, SHARE * took), MOST));
    const open = stream?.readyState === EventSource.OPEN;
    plan(again ? 0 : jittered(failures ? Math.min(FEWEST * 2 ** failures, ALONE) : open ? SLOW : ALONE));
  }
}

// --- What is said about it ------------------------------------------------------------------------------------------

const asOf = (page = document) => page.querySelector(".bottom time")?.dateTime;
const clock = () => (asOf() ?? "").slice(11, 19);

function show() {
  const [tone, word] = paused ? ["idle", "Paused"] : failures > 1 ? ["warn", "Offline"] : ["good", "Live"];
  mark.className = `state ${tone}`;
  mark.firstElementChild.textContent = word;
  mark.lastElementChild.textContent = paused ? ": let this page renew itself" : ": stop this page from renewing itself";
  mark.title = paused ? "This page stands still. Press to go on." : "This page renews itself. Press to pause.";
  mark.hidden = false;
}

function fail(what) {
  failures += 1;
  if (failures < 2) return; // A director that is restarted is back by then.
  const text = `${what}. You see what was there at ${clock()} UTC; it is asked again by itself.`;
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = false;
  show();
}

function recover() {
  if (failures > 1) voice.textContent = "The director answers again.";
  failures = 0;
  notice.hidden = true;
  show();
}

// What a person who does not see the page wants to be told of; not every number.
const gist = () => [...main.querySelectorAll("h1, .head > .state")].map((one) => one.textContent.trim()).join(": ");

// --- Putting it in place --------------------------------------------------------------------------------------------

const atEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 8;
const script = (page) => page.querySelector("script[src]")?.getAttribute("src");
const typing = () => document.activeElement?.matches("input, select, textarea");

function put(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const next = page.getElementById("main");
  if (!next || (script(page) !== script(document) && !typing())) return location.reload(); // Another release.
  const [before, focused] = [gist(), document.activeElement];
  const followed = [...main.querySelectorAll("[data-follow]")].filter(atEnd);
  morph(main, next);
  const [footer, fresh] = [document.querySelector(".bottom"), page.querySelector(".bottom")];
  if (footer && fresh) morph(footer, fresh);
  document.title = page.title;
  for (const box of followed) box.scrollTop = box.scrollHeight;
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  if (gist() !== before) voice.textContent = gist();
  setClock();
}

function morph(old, next) {
  if (old.isEqualNode(next) || old.nodeName === "NOSCRIPT") return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  if (old.matches("input, select, textarea") && (old === document.activeElement || edited(old))) return;
  if (old.matches("[data-follow]")) {
    if (atEnd(old)) children(old, next); // Somebody reads on further up: it stands still for them.
    return;
  }
  for (const { name } of [...old.attributes])
    if (!next.hasAttribute(name) && !kept(old, name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes)
    if (old.getAttribute(name) !== value && !kept(old, name)) old.setAttribute(name, value);
  children(old, next);
}

const kept = (node, name) => node.nodeName === "DETAILS" && name === "open";

function edited(field) {
  const chosen = field.options && ([...field.options].find((one) => one.defaultSelected) ?? field.options[0]);
  return field.value !== (chosen ? chosen.value : field.defaultValue);
}

// Parts are known by their id or their name, rows and items by what they link to; all else by its place.
function keys(parent) {
  const seen = new Map();
  return [...parent.childNodes].map((node) => {
    if (node.nodeType !== Node.ELEMENT_NODE) return "";
    const links = /^(TR|LI)$/.test(node.nodeName) ? [...node.querySelectorAll("a[href]")] : [];
    const name = /^(SECTION|NAV|FORM)$/.test(node.nodeName) && (node.getAttribute("aria-labelledby") ?? node.ariaLabel);
    const key = node.id || name || links.map((one) => one.getAttribute("href")).join(" ");
    if (!key) return "";
    seen.set(key, (seen.get(key) ?? 0) + 1);
    return `${node.nodeName} ${key} ${seen.get(key)}`;
  });
}

function children(old, next) {
  const [names, wanted] = [keys(old), keys(next)];
  const named = new Map(names.map((name, place) => [name, old.childNodes[place]]));
  const leaving = new Set(names.filter((name) => name && !wanted.includes(name)).map((name) => named.get(name)));
  const nameOf = new Map([...old.childNodes].map((node, place) => [node, names[place]]));
  for (const node of leaving) node.remove();
  let at = old.firstChild;
  [...next.childNodes].forEach((node, place) => {
    const name = wanted[place];
    let match = name ? named.get(name) : at && !nameOf.get(at) && at.nodeName === node.nodeName ? at : null;
    if (!match) return old.insertBefore(document.importNode(node, true), at);
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, node);
  });
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

// --- Time passes ----------------------------------------------------------------------------------------------------

const RELATIVE = /^(just now|in a moment|(in )?\d+ (s|min|h|d|y)( ago)?)$/;
const STEPS = [[31_536_000, "y"], [86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];

// As web_readonly.formats.relative says it.
function relative(seconds) {
  const distance = Math.abs(seconds);
  if (distance < 5) return seconds >= 0 ? "just now" : "in a moment";
  const [length, unit] = STEPS.find(([step]) => distance >= step);
  const count = length > 1 ? Math.round(distance / length) : Math.floor(distance);
  return seconds >= 0 ? `${count} ${unit} ago` : `in ${count} ${unit}`;
}

function setClock() {
  const shown = Date.parse(asOf());
  if (shown) ahead = shown - Date.now();
}

function tick() {
  if (paused || document.hidden) return;
  const now = Date.now() + ahead;
  const selection = getSelection();
  for (const node of main.querySelectorAll("time[datetime]")) {
    const text = node.firstChild;
    if (text?.nodeType !== Node.TEXT_NODE || !RELATIVE.test(text.nodeValue)) continue;
    const said = relative((now - Date.parse(node.dateTime)) / 1_000);
    if (said !== text.nodeValue && (selection.isCollapsed || !selection.containsNode(node, true))) text.nodeValue = said;
  }
}

// --- Start ----------------------------------------------------------------------------------------------------------

function remembered() {
  try {
    return sessionStorage.getItem("paused");
  } catch {
    return null; // A browser that keeps nothing.
  }
}

mark.addEventListener("click", () => {
  paused = !paused;
  try {
    sessionStorage.setItem("paused", paused ? "yes" : "");
  } catch {
    // Then it is for this page alone.
  }
  renewed = -Infinity;
  recover();
  goOn();
});
document.addEventListener("visibilitychange", goOn);
addEventListener("pagehide", rest);
addEventListener("pageshow", goOn);
// A log whose reader comes back to its end goes on there.
document.addEventListener("scroll", ({ target }) => target.matches?.("[data-follow]") && atEnd(target) && plan(0), true);
setInterval(tick, 5_000);
for (const box of main.querySelectorAll("[data-follow]")) box.scrollTop = box.scrollHeight;
setClock();
show();
goOn();
