// The script of the page. The server renders views as HTML. This shows them, keeps them up to
// date and sends commands. Names are text: nothing here builds HTML.
"use strict";

const TOKEN = "tuner-token"; // its key in the storage of this tab
const QUIET_MS = 30000; // between two announcements of progress
const TYPING_MS = 500; // without a key, before an experiment is checked
const MOST_PREDICTED = 200; // rows of predictions that are shown; the file has all
const UNHEARD = new Set(["epoch", "dispatched", "asked"]); // events that no view shows

const byId = (id) => document.getElementById(id);
let token = sessionStorage.getItem(TOKEN);
let etag = null; // of the view that is shown

// Requests

async function ask(url, { method = "GET", body, headers = {}, signal } = {}) {
  const given = new Headers(headers);
  if (token) given.set("Authorization", `Bearer ${token}`);
  const answer = await fetch(url, { method, body, headers: given, signal, cache: "no-store" });
  if (answer.status === 401) askForToken();
  if (!answer.ok && answer.status !== 304) throw new Error(await problemOf(answer));
  return answer;
}

async function problemOf(answer) {
  const text = await answer.text();
  try {
    const problem = JSON.parse(text);
    return problem.detail || problem.title || answer.statusText;
  } catch {
    return text.slice(0, 300) || answer.statusText || `HTTP status ${answer.status}`;
  }
}

const send = (url, body) => ask(url, {
  method: "POST",
  body: JSON.stringify(body),
  headers: { "Content-Type": "application/json", "Idempotency-Key": newKey() },
});

function newKey() { // crypto.randomUUID needs HTTPS
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function say(text, bad = false) {
  const message = byId("message");
  message.textContent = text;
  message.classList.toggle("bad", bad);
  message.hidden = !text;
}

const complain = (error) => {
  if (error.name !== "AbortError") say(error.message, true);
};

// Access: the token is asked for once, and is kept in this tab.

function askForToken() {
  const why = "The token is unknown, or may not be used here. Try another.";
  if (token) byId("access-why").textContent = why;
  sessionStorage.removeItem(TOKEN);
  token = null;
  stopFollowing();
  byId("forget").hidden = true;
  byId("place").replaceChildren();
  byId("access").hidden = false;
  byId("token").focus();
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  sessionStorage.setItem(TOKEN, token);
  byId("access").hidden = true;
  etag = null;
  say("");
  refresh();
});

byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  location.assign(".");
});

// Views: fetched, and laid over the shown one, so that focus, selection and input stay.

let busy = false;
let again = false;
let lastMs = 0; // that the server took

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  const began = performance.now();
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await ask(`page/view${location.search}`, { headers });
    if (answer.status !== 304) {
      etag = answer.headers.get("ETag");
      show(await answer.text());
    }
  } catch (error) {
    byId("loading")?.remove();
    if (token || byId("access").hidden) complain(error);
  } finally {
    lastMs = performance.now() - began;
    busy = false;
    if (again) {
      again = false;
      soon();
    }
  }
}

let due = null;

// Refresh within a second, or later where views take the server long.
function soon() {
  due ??= setTimeout(() => {
    due = null;
    refresh();
  }, Math.max(700, 5 * lastMs));
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("view");
  const shown = byId("view");
  if (shown && shown.dataset.view === fresh.dataset.view) morph(shown, document.adoptNode(fresh));
  else byId("place").replaceChildren(document.adoptNode(fresh));
  shownNow();
}

const sameKind = (a, b) => a.nodeName === b.nodeName && a.dataset?.key === b.dataset?.key;

function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.dataset.load || old.dataset.kept !== undefined) return; // filled by this script
  for (const { name } of [...old.attributes]) {
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  let at = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    let have = at;
    if (want.dataset?.key) have = [...old.children].find((child) => sameKind(child, want));
    if (!have || !sameKind(have, want)) {
      old.insertBefore(want, at);
      continue;
    }
    if (have === at) at = at.nextSibling;
    else old.insertBefore(have, at);
    morph(have, want);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

let announced = "";
let announcedAt = 0;

// Screen readers hear of a new state at once, and of progress now and then.
function announce(words) {
  if (!words || words === announced) return;
  const [state] = words.split(",");
  const now = performance.now();
  if (announced.split(",")[0] === state && now - announcedAt < QUIET_MS) return;
  if (announced) byId("live").textContent = words;
  announced = words;
  announcedAt = now;
}

function shownNow() {
  const view = byId("view");
  const { title, announce: words } = view.dataset;
  document.title = title === "tuner" ? title : `${title} · tuner`;
  for (const link of document.querySelectorAll("nav [data-view]")) {
    const here = link.dataset.view === view.dataset.nav;
    if (here) link.setAttribute("aria-current", view.dataset.view === view.dataset.nav ? "page" : "true");
    else link.removeAttribute("aria-current");
  }
  byId("forget").hidden = !token;
  announce(words);
  follow(view.dataset.events, Number(view.dataset.poll));
  if (byId("editor") && !byId("editor").dataset.ready) edit(byId("editor"));
  for (const element of view.querySelectorAll("[data-load]:empty")) load(element);
}

async function load(element) {
  try {
    const text = await (await ask(element.dataset.load)).text();
    element.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  } catch {
    // It is an extra: the view is whole without.
  }
}

// Live: the events of a study, and a slow poll beside them.

let following = null;
let poll = null;

function stopFollowing() {
  following?.stop.abort();
  following = null;
  clearInterval(poll);
}

function follow(url, pollS) {
  clearInterval(poll);
  if (pollS) poll = setInterval(() => document.hidden || refresh(), 1000 * pollS);
  const stream = url?.split("?")[0];
  if (following && following.stream === stream) return;
  following?.stop.abort();
  following = stream ? { stream, stop: new AbortController() } : null;
  if (following) listen(url, following);
}

// Read server-sent events by fetch, because EventSource sends no Authorization.
async function listen(url, { stream, stop }) {
  const { signal } = stop;
  let last = null; // id
  let waitMs = 1000;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream" };
      if (last) headers["Last-Event-ID"] = last;
      const answer = await ask(last ? stream : url, { headers, signal });
      waitMs = 1000;
      for await (const { id, event } of events(answer.body)) {
        last = id || last;
        if (!UNHEARD.has(event)) soon();
        if (event === "ended") {
          if (following?.stop === stop) following = null; // a resumed study is followed again
          return;
        }
      }
    } catch {
      if (signal.aborted || !byId("access").hidden) return;
      soon(); // shows the error, if the server does not answer
    }
    await new Promise((wake) => setTimeout(wake, waitMs));
    waitMs = Math.min(2 * waitMs, 30000);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const frames = (rest + value).split(/\r?\n\r?\n/);
      rest = frames.pop();
      for (const frame of frames) {
        const fields = {};
        for (const line of frame.split(/\r?\n/)) {
          const [, name, text] = line.match(/^(\w+): ?(.*)$/) ?? [];
          if (name && name !== "data") fields[name] = text;
        }
        if (fields.event) yield fields;
      }
    }
  } finally {
    reader.cancel();
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && byId("view")?.dataset.poll) refresh();
});

// Buttons and downloads

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-post], [data-download], [data-goto], [data-opens]");
  if (target?.dataset.opens) byId(target.dataset.opens).showModal();
  else if (event.target.id === "save-predicted") savePredicted(event.target).catch(complain);
  else if (target?.matches("button[data-post]")) act(target, target.dataset, {});
  else if (target?.dataset.goto) goTo(Number(target.dataset.goto));
  else if (target?.dataset.download !== undefined && token) {
    event.preventDefault();
    download(target).catch(complain);
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.post) {
    event.preventDefault();
    const body = {};
    for (const input of form.querySelectorAll("[name]")) body[input.name] = Number(input.value);
    act(form.querySelector("[type=submit]"), form.dataset, body);
  } else if (form.dataset.delete) { // a dialog, which closes itself
    if (event.submitter?.value === "yes") remove(form.dataset.delete).catch(complain);
  } else if (form.id === "predict") {
    event.preventDefault();
    predict(form).catch(complain);
  } else if (form.id === "upload") {
    event.preventDefault();
    upload(byId("file").files[0]).catch(complain);
  } else if (form.id === "editor") {
    event.preventDefault();
    start(form).catch(complain);
  }
});

async function act(button, { post, done }, body) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  say("");
  try {
    await send(post, body);
    say(done);
  } catch (error) {
    complain(error);
  }
  button.removeAttribute("aria-disabled");
  refresh();
}

async function download(link) {
  say(`Fetching ${link.dataset.download} …`);
  await save(await ask(link.href), link.dataset.download);
  say("");
}

async function save(answer, name) {
  const saved = document.createElement("a");
  saved.href = URL.createObjectURL(await answer.blob());
  saved.download = name;
  saved.click();
  setTimeout(() => URL.revokeObjectURL(saved.href), 60000);
}

async function remove(url) {
  stopFollowing();
  try {
    await ask(url, { method: "DELETE" });
  } catch (error) {
    refresh();
    throw error;
  }
  location.assign(".");
}

// Predictions: of the rows of a file, or after the end of the data.

let predicted = null; // the request whose answer is shown

async function predict(form) {
  const button = form.querySelector("[type=submit]");
  if (button.getAttribute("aria-disabled") === "true") return;
  const file = byId("rows").files[0];
  const type = file ? "text/csv" : "application/json";
  const request = { url: form.dataset.url, body: file ?? "{}", type };
  button.setAttribute("aria-disabled", "true");
  say("Predicting …");
  try {
    showPredicted(await (await askPredicted(request, "application/json")).json());
    predicted = request;
    say("");
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

const askPredicted = ({ url, body, type }, wanted) => ask(url, {
  method: "POST", body, headers: { "Content-Type": type, Accept: wanted },
});

async function savePredicted(button) {
  await save(await askPredicted(predicted, "text/csv"), button.dataset.name);
}

function showPredicted({ rows, dtypes, notes }) {
  const place = byId("predicted");
  const names = Object.keys(dtypes);
  const row = (tag, values, numbers) => {
    const line = document.createElement("tr");
    line.append(...values.map((value, i) => {
      const cell = document.createElement(tag);
      if (tag === "th") cell.scope = "col";
      cell.classList.toggle("number", numbers[i]);
      cell.textContent = value;
      return cell;
    }));
    return line;
  };
  const numbers = names.map((name) => rows.every((each) => typeof each[name] !== "string"));
  const midnight = "T00:00:00"; // days are shown without it
  const areDays = (name) => dtypes[name].startsWith("datetime64")
    && rows.every((each) => each[name] === null || each[name].endsWith(midnight));
  const days = new Set(names.filter(areDays));
  const text = (value, name) => value === null ? "–"
    : typeof value === "number" ? String(Number(value.toPrecision(6)))
      : days.has(name) ? value.slice(0, -midnight.length) : String(value);
  const shown = rows.slice(0, MOST_PREDICTED);
  place.querySelector("thead").replaceChildren(row("th", names, numbers));
  place.querySelector("tbody").replaceChildren(
    ...shown.map((each) => row("td", names.map((name) => text(each[name], name)), numbers)));
  place.querySelector(".notes").replaceChildren(...notes.map((note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  }));
  const words = rows.length === 1 ? "1 row" : `${rows.length.toLocaleString("en")} rows`;
  const more = rows.length > shown.length ? `, of which ${shown.length} are shown` : "";
  place.querySelector("p").textContent = `${words}${more}.`;
  place.hidden = false;
  byId("live").textContent = `${words} predicted.`;
}

// A new search: upload, edit with the errors in place, start

function upload(file) {
  const sent = byId("sent");
  sent.hidden = false;
  say(`Uploading ${file.name} …`);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much is sent
    request.open("POST", `v1/datasets?name=${encodeURIComponent(file.name)}`);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = ({ loaded, total }) => {
      sent.value = total ? loaded / total : 0;
      if (loaded === total) say("Reading the file …");
    };
    request.onload = async () => {
      const answer = new Response(request.responseText, { status: request.status });
      if (!answer.ok) {
        sent.hidden = true;
        reject(new Error(await problemOf(answer)));
        return;
      }
      const { id } = await answer.json();
      location.assign(`?new=1&dataset=${encodeURIComponent(id)}`);
      resolve();
    };
    request.onerror = () => {
      sent.hidden = true;
      reject(new Error(`${file.name} was not sent whole; try again`));
    };
    request.send(file);
  });
}

let typing = null;
let checking = null;

function edit(form) {
  form.dataset.ready = "1";
  const yaml = byId("yaml");
  number();
  yaml.addEventListener("input", () => {
    number();
    clearTimeout(typing);
    typing = setTimeout(() => check(false).catch(complain), TYPING_MS);
  });
  byId("check-data")?.addEventListener("click", () => check(true).catch(complain));
  check(false).catch(complain);
}

// Number the lines, and mark those with an error.
function number() {
  const yaml = byId("yaml");
  const bad = new Set(Array.from(document.querySelectorAll("#check [data-line]"),
    (item) => Number(item.dataset.line)));
  const lines = yaml.value.split("\n");
  yaml.rows = lines.length + 1;
  const line = (i, text) => {
    const place = document.createElement("span");
    place.textContent = text;
    place.classList.toggle("bad", bad.has(i + 1));
    return place;
  };
  const sign = (i) => bad.has(i + 1) ? `✕ ${i + 1}` : String(i + 1);
  document.querySelector(".lines").replaceChildren(...lines.map((_, i) => line(i, sign(i))));
  document.querySelector(".marks").replaceChildren(...lines.map((_, i) => line(i, "")));
}

// Check the experiment; with its data where that is asked for. Returns whether it is right.
async function check(withData) {
  checking?.abort();
  checking = new AbortController();
  const { signal } = checking;
  const place = byId("check");
  const body = { yaml: byId("yaml").value, data: withData };
  if (withData) place.setAttribute("aria-busy", "true");
  const headers = { "Content-Type": "application/json" };
  const request = { method: "POST", body: JSON.stringify(body), headers, signal };
  try {
    const text = await (await ask("page/check", request)).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("checked");
    const wrong = fresh.querySelector(".problems") !== null;
    const shown = byId("checked");
    if (shown?.isEqualNode(fresh) !== true) place.replaceChildren(document.adoptNode(fresh));
    byId("yaml").setAttribute("aria-invalid", String(wrong));
    number();
    return !wrong;
  } finally {
    place.removeAttribute("aria-busy");
  }
}

function goTo(line) {
  const yaml = byId("yaml");
  const lines = yaml.value.split("\n");
  const begin = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  yaml.focus();
  yaml.setSelectionRange(begin, begin + (lines[line - 1] ?? "").length);
}

async function start(form) {
  say("");
  clearTimeout(typing);
  if (!(await check(true))) {
    byId("check").scrollIntoView({ block: "nearest" });
    const first = document.querySelector("#check [data-goto]");
    if (first) goTo(Number(first.dataset.goto));
    return;
  }
  const body = { experiment: byId("yaml").value, priority: Number(byId("priority").value) };
  const name = byId("study-name").value.trim();
  if (name) body.name = name;
  const study = await (await send("v1/studies", body)).json();
  location.assign(`?study=${encodeURIComponent(study.name)}`);
}

if (byId("view")) shownNow();
else refresh();
