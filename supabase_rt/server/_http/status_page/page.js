"use strict";
// Data from the server is only set as text; the page's policy forbids anything else.

const PROTOCOL = "supabase-rt.inspector";
const NAME = "supabase-rt inspector token";
const KEPT = 500;
const KINDS = ["connect", "disconnect", "refuse", "join", "join_refused", "leave", "broadcast",
  "presence", "change", "request"];
const NAMES = { join_refused: "join refused", refuse: "refused" };
const $ = (id) => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// -- the socket -----------------------------------------------------------------------------

// Receives events and state. The token is in a subprotocol: a page can set no headers of a socket.
class Link {
  constructor(token, told) {
    this.token = token;
    this.told = told;
    this.tries = 0;
    this.over = false;
    this.connect();
  }

  connect() {
    const url = new URL("inspector/socket", location.origin + location.pathname);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = this.socket = new WebSocket(url, [PROTOCOL, this.token]);
    socket.onopen = () => {
      this.tries = 0;
      this.told("live");
    };
    socket.onmessage = (event) => this.told(...JSON.parse(event.data));
    socket.onclose = () => this.lost();
  }

  async lost() {
    if (this.over) return;
    this.told("lost");
    // A refused socket gives no reason, but a refused request does.
    try {
      await this.ask("GET", "rows");
    } catch (error) {
      if (error.status === 401 && !this.over) {
        this.end();
        this.told("refused", error.message);
      }
    }
    if (this.over) return;
    setTimeout(() => this.over || this.connect(), Math.min(5000, 300 * 2 ** this.tries++));
  }

  end() {
    this.over = true;
    this.socket.close();
  }

  async ask(method, what, body) {
    const headers = { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" };
    const options = { method, headers, body: body && JSON.stringify(body), credentials: "omit" };
    const response = await fetch(`inspector/${what}`, options);
    const answer = await response.json();
    if (response.ok) return answer;
    const error = new Error(answer.error ?? response.statusText);
    error.status = response.status;
    throw error;
  }
}

// -- events ---------------------------------------------------------------------------------

const shown = new Set(KINDS);
let paused = false;
let held = [];

function eventRow(found) {
  const row = element("li");
  const moment = new Date(found.at * 1000);
  const milliseconds = String(moment.getMilliseconds()).padStart(3, "0");
  row.append(element("span", "when", `${moment.toTimeString().slice(0, 8)}.${milliseconds}`));
  const kind = element("span", "kind", NAMES[found.kind] ?? found.kind);
  kind.dataset.kind = found.kind;
  row.append(kind);
  const isHttp = found.kind === "request" || found.kind === "refuse";
  const silent = found.kind === "change" ? "database" : isHttp ? "http" : "";
  row.append(element("span", "from", found.connection === null ? silent : `socket ${found.connection}`));
  const what = element("div", "what");
  if (found.topic) what.append(element("b", "", found.topic));
  const words = [found.event, found.text].filter(Boolean).join(" · ");
  if (words) what.append(element("span", "more", words));
  if (found.reached !== null) what.append(element("span", "more", `→ ${found.reached}`));
  if (found.content) what.append(element("span", "content", found.content));
  row.append(what);
  row.dataset.kind = found.kind;
  row.dataset.text = `${row.textContent}`.toLowerCase();
  row.hidden = !fits(row);
  return row;
}

function fits(row) {
  return shown.has(row.dataset.kind) && row.dataset.text.includes($("filter").value.toLowerCase());
}

function showEvents(found) {
  if (paused) {
    held = held.concat(found).slice(-KEPT);
    $("pause").textContent = `Resume (${held.length})`;
    return;
  }
  const list = $("events");
  list.prepend(...found.slice(-KEPT).map(eventRow).reverse());
  while (list.childElementCount > KEPT) list.lastElementChild.remove();
  $("empty").hidden = list.childElementCount > 0;
}

function refilter() {
  for (const row of $("events").children) row.hidden = !fits(row);
}

function kindButtons() {
  for (const kind of KINDS) {
    const button = element("button", "quiet", NAMES[kind] ?? kind);
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.onclick = () => {
      if (!shown.delete(kind)) shown.add(kind);
      button.setAttribute("aria-pressed", String(shown.has(kind)));
      refilter();
    };
    $("kinds").append(button);
  }
}

// -- state ----------------------------------------------------------------------------------

function fill(id, entries) {
  $(id).replaceChildren(...(entries.length ? entries : [element("li", "none", "none")]));
}

function chip(channel) {
  const made = element("span", channel.private ? "chip private" : "chip", channel.topic);
  const wants = [channel.role, ...channel.changes];
  made.title = wants.join("\n");
  return made;
}

function socketEntry(socket) {
  const entry = element("li");
  entry.append(element("span", "name", `socket ${socket.number}`));
  entry.append(element("span", "dim", `${socket.peer} · vsn ${socket.vsn}`));
  if (socket.channels.length) {
    const chips = element("div", "chips");
    chips.append(...socket.channels.map(chip));
    entry.append(chips);
  }
  return entry;
}

function presenceEntry(space) {
  const entry = element("li");
  entry.append(element("span", "name", space.topic));
  if (space.private) entry.append(element("span", "dim", "private"));
  const chips = element("div", "chips");
  for (const [key, metas] of Object.entries(space.present)) {
    const made = element("span", "chip", metas.length > 1 ? `${key} ×${metas.length}` : key);
    made.title = JSON.stringify(metas, null, 2);
    chips.append(made);
  }
  entry.append(chips);
  return entry;
}

function showState(state) {
  fill("sockets", state.sockets.map(socketEntry));
  fill("presence", state.presence.map(presenceEntry));
  $("socket-count").textContent = state.totals.sockets;
  $("presence-count").textContent = state.totals.present;
  $("totals").replaceChildren(...Object.entries(state.totals).map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", "", name), element("dd", "", value.toLocaleString("en")));
    return pair;
  }));
  const topics = new Set(state.sockets.flatMap((socket) => socket.channels.map((one) => one.topic)));
  $("topics").replaceChildren(...[...topics].map((topic) => new Option(topic)));
}

// -- forms ----------------------------------------------------------------------------------

let link = null;

function say(form, ok, text) {
  const place = form.querySelector(".answer");
  place.dataset.ok = ok ? "yes" : "no";
  place.textContent = text;
}

function onSubmit(id, action) {
  const form = $(id);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      say(form, true, await action(form.elements));
    } catch (error) {
      say(form, false, error.message);
    }
    button.disabled = false;
  });
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`not JSON: ${error.message}`);
  }
}

async function learnTables() {
  try {
    const { tables } = await link.ask("GET", "rows");
    $("tables").replaceChildren(...tables.map((name) => new Option(name)));
  } catch { /* only suggestions */ }
}

onSubmit("broadcast", async (fields) => {
  const { reached } = await link.ask("POST", "broadcast", {
    topic: fields.topic.value,
    private: fields.private.checked,
    event: fields.event.value,
    payload: read(fields.payload.value),
  });
  return `sent → ${reached}`;
});

onSubmit("insert", async (fields) => {
  const record = read(fields.record.value);
  const { row } = await link.ask("POST", "rows", { table: fields.table.value, record });
  learnTables();
  return `inserted ${JSON.stringify(row)}`;
});

// -- begin ----------------------------------------------------------------------------------

function told(what, about) {
  if (what === "state") showState(about);
  else if (what === "events") showEvents(about);
  else if (what === "refused") lock(about);
  else {
    $("status").dataset.state = what;
    $("status").textContent = what === "live" ? "live" : "connection lost, trying again";
    if (what === "live") {
      $("unlock").hidden = true;
      $("main").hidden = false;
      learnTables();
    }
  }
}

function lock(reason) {
  $("main").hidden = true;
  $("unlock").hidden = false;
  $("status").dataset.state = "waiting";
  $("status").textContent = "locked";
  if (reason) say($("unlock"), false, reason);
  $("unlock").elements.address.focus();
}

// sessionStorage belongs to this tab and this port; a cookie would be sent to every port.
function keep(token) {
  try {
    sessionStorage.setItem(NAME, token);
  } catch { /* storage is forbidden; the page keeps the token until it is closed */ }
}

function kept() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}

// Remove the token from the address bar, where it could be seen or copied.
function handed() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

function open(token) {
  if (!/^[\w-]+$/.test(token)) {
    lock("This is not the address that the server printed.");
    return;
  }
  keep(token);
  if (link) link.end();
  link = new Link(token, told);
}

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  open(event.target.elements.address.value.trim().split("token=").pop());
});
window.addEventListener("hashchange", () => {
  const token = handed();
  if (token !== null) open(token);
});
$("filter").addEventListener("input", refilter);
$("clear").addEventListener("click", () => {
  $("events").replaceChildren();
  $("empty").hidden = false;
});
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Resume" : "Pause";
  if (!paused) showEvents(held.splice(0));
});
$("events").addEventListener("click", (event) => {
  if (!String(getSelection())) event.target.closest("li")?.classList.toggle("open");
});
kindButtons();

const token = handed() ?? kept();
if (token) open(token);
else lock("");
