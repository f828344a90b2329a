// What both tabs share: elements, requests with the token, tabs, places to drop files on.

export const at = (id) => document.getElementById(id);

// An element with its properties and children; text is never read as HTML.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

let token = sessionStorage.getItem("token");
let answered = [];

// The JSON answer of the server. An error has the server's own line as its message.
export async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("the server does not answer; see whether it still runs, and whether the files can still be read");
  }
  if (answer.status === 401) {
    at("access").hidden = false;
    at("refused").textContent = token ? "This token is not the server's." : "";
    at("token").focus();
    await new Promise((resolve) => answered.push(resolve));
    return ask(path, options);
  }
  if (options.as === "blob" && answer.ok) return answer.blob();
  const content = await answer.json().catch(() => ({ error: `the server answers with status ${answer.status}` }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  sessionStorage.setItem("token", token);
  at("token").value = "";
  at("access").hidden = true;
  const waiting = answered;
  answered = [];
  waiting.forEach((resolve) => resolve());
});

const tabs = [...document.querySelectorAll("[role=tab]")];

export function show(chosen) {
  for (const tab of tabs) {
    const selected = tab === chosen;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    at(tab.getAttribute("aria-controls")).hidden = !selected;
  }
}

for (const [place, tab] of tabs.entries()) {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    show(next);
    next.focus();
  });
}

// Call `take` with the files, and paths inside dropped folders, that are dropped on an element.
export function onDrop(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    element.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    take((await Promise.all(entries.map(filesIn))).flat());
  });
}

// A file dropped beside the place must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesIn))).flat();
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
