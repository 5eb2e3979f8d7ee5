"use strict";
// What comes from the server is only ever set as text; the page's policy forbids anything else.

const TOPIC = "realtime:supabase-rt:inspector";
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

class Link {
  constructor(key, told) {
    this.key = key;
    this.told = told;
    this.ref = 0;
    this.waiting = new Map();
    this.tries = 0;
    this.opened = false;
    this.over = false;
    this.connect();
  }

  connect() {
    const url = new URL("realtime/v1/websocket", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams({ apikey: this.key, vsn: "2.0.0" });
    const socket = this.socket = new WebSocket(url);
    socket.onopen = () => this.begin();
    socket.onmessage = (event) => this.take(event.data);
    socket.onclose = () => this.lost();
  }

  async begin() {
    this.opened = true;
    this.beats = setInterval(() => this.push(null, "phoenix", "heartbeat", {}), 20000);
    const join = String(++this.ref);
    const answer = await this.push(join, TOPIC, "phx_join", { config: { private: true } }, join);
    if (answer.status === "ok") {
      this.tries = 0;
      this.told("live");
    } else {
      this.end();
      this.told("refused", answer.response.reason);
    }
  }

  // The answer to a frame; one whose link is lost meanwhile is an error too.
  push(join, topic, event, payload, ref = String(++this.ref)) {
    return new Promise((resolve) => {
      if (this.socket.readyState !== WebSocket.OPEN) {
        resolve({ status: "error", response: { reason: "not connected" } });
        return;
      }
      this.waiting.set(ref, resolve);
      this.socket.send(JSON.stringify([join, ref, topic, event, payload]));
    });
  }

  take(data) {
    if (typeof data !== "string") return;
    const [, ref, topic, event, payload] = JSON.parse(data);
    if (event === "phx_reply" && this.waiting.has(ref)) {
      this.waiting.get(ref)(payload);
      this.waiting.delete(ref);
    } else if (topic === TOPIC && event === "broadcast") {
      this.told(payload.event, payload.payload);
    } else if (topic === TOPIC && event === "system" && payload.status === "error") {
      this.end();
      this.told("refused", payload.message);
    }
  }

  lost() {
    clearInterval(this.beats);
    for (const resolve of this.waiting.values()) {
      resolve({ status: "error", response: { reason: "the connection was lost" } });
    }
    this.waiting.clear();
    if (this.over) return;
    if (!this.opened && this.tries > 1) {
      this.end();
      this.told("refused", "The server does not answer, or does not accept this key.");
      return;
    }
    this.told("lost");
    setTimeout(() => this.over || this.connect(), Math.min(5000, 300 * 2 ** this.tries++));
  }

  end() {
    this.over = true;
    this.socket.close();
  }

  // Join a topic as a client would, say it, and leave.
  async broadcast(topic, isPrivate, event, payload) {
    const join = String(++this.ref);
    const wire = `realtime:${topic}`;
    const config = { private: isPrivate, broadcast: { ack: true, self: false } };
    let answer = await this.push(join, wire, "phx_join", { config }, join);
    if (answer.status !== "ok") return answer;
    answer = await this.push(join, wire, "broadcast", { type: "broadcast", event, payload });
    await this.push(join, wire, "phx_leave", {});
    return answer;
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
  const mine = socket.inspector ? " · inspector" : "";
  entry.append(element("span", "dim", `${socket.peer} · vsn ${socket.vsn}${mine}`));
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

// -- what can be done -----------------------------------------------------------------------

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

async function http(method, body) {
  const headers = { Authorization: `Bearer ${link.key}`, "Content-Type": "application/json" };
  const response = await fetch("inspector/rows", { method, headers, body });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer;
}

async function learnTables() {
  try {
    const { tables } = await http("GET");
    $("tables").replaceChildren(...tables.map((name) => new Option(name)));
  } catch { /* only suggestions */ }
}

onSubmit("broadcast", async (fields) => {
  const payload = read(fields.payload.value);
  const answer = await link.broadcast(
    fields.topic.value, fields.private.checked, fields.event.value, payload);
  if (answer.status !== "ok") throw new Error(answer.response.reason ?? JSON.stringify(answer.response));
  return "sent";
});

onSubmit("insert", async (fields) => {
  const record = read(fields.record.value);
  const answer = await http("POST", JSON.stringify({ table: fields.table.value, record }));
  learnTables();
  return `inserted ${JSON.stringify(answer.row)}`;
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
  $("unlock").elements.key.focus();
}

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  link = new Link(event.target.elements.key.value.trim(), told);
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

const handed = document.querySelector('meta[name="key"]').content;
if (handed) link = new Link(handed, told);
else lock("");
