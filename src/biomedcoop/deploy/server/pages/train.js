// The tab that trains: images sorted into classes here, sent once, and a look at the progress every second.

import { ask, at, count, make, onDrop } from "./page.js";
import { loadModels } from "./predict.js";

const classes = new Map(); // "split/class" or "class" -> [{file, path}]
let running = null;

const HIDDEN = /(^|\/)(\.|__MACOSX)|(^|\/)(thumbs\.db|desktop\.ini)$/i;
const SPLITS = ["train", "val", "test"];

// "scans/benign/1.png" belongs to benign, "scans/test/benign/1.png" to test/benign.
function addFolder(files) {
  let lost = 0;
  for (const { file, path } of files) {
    const parts = path.split("/");
    if (HIDDEN.test(path)) continue;
    if (parts.length < 3) {
      lost += 1;
      continue;
    }
    const split = parts.length > 3 && SPLITS.includes(parts.at(-3)) ? `${parts.at(-3)}/` : "";
    add(`${split}${parts.at(-2)}`, [file]);
  }
  at("left-out").textContent = lost ? `${count(lost, "file")} outside the folders of classes left out.` : "";
  list();
}

function add(name, files) {
  if (!classes.has(name)) classes.set(name, []);
  classes.get(name).push(...files);
}

function list() {
  const body = at("classes").tBodies[0];
  body.replaceChildren();
  for (const [name, files] of [...classes].sort()) {
    const remove = make("button", { type: "button", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => {
      classes.delete(name);
      list();
      at("folder").focus();
    });
    const cells = [make("td", { textContent: String(files.length), className: "right" }), make("td", {}, remove)];
    body.append(make("tr", {}, Object.assign(make("th", { textContent: name }), { scope: "row" }), ...cells));
  }
  at("classes").hidden = !classes.size;
}

function body() {
  const form = new FormData();
  for (const [name, files] of classes) {
    const seen = new Map();
    for (const file of files) {
      const times = seen.get(file.name) ?? 0;
      seen.set(file.name, times + 1);
      form.append("file", file, `${name}/${times ? `${times}-` : ""}${file.name}`);
    }
  }
  return form;
}

function address() {
  const values = { name: at("name").value, method: at("method").value, modality: at("modality").value.trim(), organ: at("organ").value.trim() };
  return `/train?${new URLSearchParams(Object.entries(values).filter(([, value]) => value))}`;
}

async function train() {
  const found = new Set([...classes.keys()].map((name) => name.split("/").at(-1)));
  if (found.size < 2) {
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
    add(name.replaceAll("/", "-"), [...at("class-files").files]);
    at("left-out").textContent = "";
    at("class-name").value = "";
    list();
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
