// The tab that trains: images sorted into classes here, sent once, and a look at the progress every second.

import { ask, at, count, make, onDrop } from "./page.js";
import { loadModels } from "./predict.js";

const images = []; // {file, path}: the path is that in the folder which the server reads, "benign/…/1.png" or "test/benign/…/1.png"
let running = null;

const HIDDEN = /(^|\/)(\.|__MACOSX)|(^|\/)(thumbs\.db|desktop\.ini)$/i;
const SPLIT = /^(train(ing)?|trn|val(id|idation)?|dev|test(ing)?|tst)([ _-]?(set|data|images))?$/i;

// A folder has its own name before its paths; several that are dropped at once are the folders of classes or splits.
function addFolder(files) {
  const found = files.filter(({ path }) => !HIDDEN.test(path)).map(({ file, path }) => ({ file, parts: path.split("/") }));
  const above = new Set(found.map(({ parts }) => parts[0])).size === 1 ? 1 : 0;
  const inside = found.filter(({ parts }) => parts.length > above + 1);
  add(inside.map(({ file, parts }) => ({ file, path: parts.slice(above).join("/") })));
  const lost = found.length - inside.length;
  at("left-out").textContent = lost ? `${count(lost, "file")} outside the folders of classes left out.` : "";
}

// A second file of one path gets a number before its name.
function add(files) {
  const taken = new Set(images.map(({ path }) => path));
  for (const { file, path } of files) {
    const end = path.lastIndexOf("/") + 1;
    let free = path;
    for (let number = 1; taken.has(free); number += 1) free = `${path.slice(0, end)}${number}-${path.slice(end)}`;
    taken.add(free);
    images.push({ file, path: free });
  }
  list();
}

// The folders of images, as the server's reader takes them in most cases: folders in those of splits are classes, and all others are.
function folders() {
  const tops = [...new Set(images.map(({ path }) => path.split("/")[0]))];
  const divided = tops.every((name) => SPLIT.test(name)) || tops.some((name) => SPLIT.test(name) && /^tr/i.test(name));
  const found = new Map();
  for (const { path } of images) {
    const parts = path.split("/");
    const name = parts.slice(0, divided && SPLIT.test(parts[0]) && parts.length > 2 ? 2 : 1).join("/");
    found.set(name, (found.get(name) ?? 0) + 1);
  }
  return [...found].sort();
}

function list() {
  const body = at("classes").tBodies[0];
  body.replaceChildren();
  for (const [name, number] of folders()) {
    const remove = make("button", { type: "button", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => {
      images.splice(0, images.length, ...images.filter(({ path }) => !path.startsWith(`${name}/`)));
      list();
      at("folder").focus();
    });
    const cells = [make("td", { textContent: String(number), className: "right" }), make("td", {}, remove)];
    body.append(make("tr", {}, Object.assign(make("th", { textContent: name }), { scope: "row" }), ...cells));
  }
  at("classes").hidden = !images.length;
}

function body() {
  const form = new FormData();
  for (const { file, path } of images) form.append("file", file, path);
  return form;
}

function address() {
  const values = { name: at("name").value, method: at("method").value, modality: at("modality").value.trim(), organ: at("organ").value.trim() };
  return `/train?${new URLSearchParams(Object.entries(values).filter(([, value]) => value))}`;
}

async function train() {
  if (!images.length) {
    at("train-state").textContent = "At least two classes with images are needed.";
    return;
  }
  at("outcome").hidden = true;
  at("start").disabled = true;
  at("train-state").textContent = "Sending the images …";
  try {
    running = await ask(address(), { method: "POST", body: body() });
    at("cancel").hidden = false;
    at("running").hidden = false;
    at("train-state").textContent = running.left_out ? `Training. ${count(running.left_out, "file")} left out that are no images.` : "Training.";
    while (running.state === "running") {
      at("stage").textContent = running.total ? `${running.stage}: ${running.steps} of ${running.total}` : running.stage;
      if (running.total) Object.assign(at("progress"), { max: running.total, value: running.steps });
      else at("progress").removeAttribute("value");
      await new Promise((resolve) => setTimeout(resolve, 700));
      running = await ask(`/train/${running.key}`);
    }
    await end();
  } catch (error) {
    at("train-state").textContent = error.message;
  }
  at("running").hidden = true;
  at("cancel").hidden = true;
  at("start").disabled = false;
}

async function end() {
  if (running.state !== "done") {
    at("train-state").textContent = running.state === "stopped" ? "The training is stopped." : running.error;
    return;
  }
  at("train-state").textContent = `The model '${running.name}' is trained; it can be chosen in the tab Predict.`;
  at("verdict").replaceChildren(...running.verdict.map((textContent) => make("li", { textContent })));
  const report = `/train/${running.key}/report.html`;
  at("open-report").href = report;
  at("report").src = report;
  await loadModels(running.name);
  at("outcome").hidden = false;
}

// Fetched rather than linked, because a link sends no token.
at("save-model").addEventListener("click", async () => {
  const url = URL.createObjectURL(await ask(`/train/${running.key}/model.zip`, { as: "blob" }));
  make("a", { href: url, download: `${running.name}.zip` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});

at("folder").addEventListener("change", () => {
  addFolder([...at("folder").files].map((file) => ({ file, path: file.webkitRelativePath })));
  at("folder").value = "";
});
onDrop(at("drop-folder"), addFolder);
at("class-files").addEventListener("change", () => {
  const name = at("class-name").value.trim();
  if (!name) {
    at("left-out").textContent = "Name the class first, then choose its images.";
    at("class-name").focus();
  } else {
    add([...at("class-files").files].map((file) => ({ file, path: `${name.replaceAll(/[\\/]/g, "-")}/${file.name}` })));
    at("left-out").textContent = "";
    at("class-name").value = "";
  }
  at("class-files").value = "";
});
at("training").addEventListener("submit", (event) => {
  event.preventDefault();
  train();
});
at("cancel").addEventListener("click", () => running && ask(`/train/${running.key}`, { method: "DELETE" }));

// Asked for when the tab is first shown, so that a page without a token asks once.
at("tab-train").addEventListener("focus", prepare, { once: true });
at("tab-train").addEventListener("click", prepare, { once: true });
let prepared = false;

async function prepare() {
  if (prepared) return;
  prepared = true;
  const about = await ask("/train");
  at("method").replaceChildren(...about.methods.map((name) => make("option", { value: name, textContent: name })));
  at("training").hidden = !about.trains;
  at("off").hidden = about.trains;
  at("off").textContent = about.trains ? "" : `Nothing can be trained here: ${about.reason}.`;
}
