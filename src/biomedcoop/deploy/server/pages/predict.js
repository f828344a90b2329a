// The tab that predicts: one request for each file, so that a bad file leaves the others alone.

import { ask, at, count, make, onDrop, percent } from "./page.js";

let models = [];
let busy = Promise.resolve();

export async function loadModels(select) {
  ({ models } = await ask("/models"));
  at("model").replaceChildren(...models.map(({ name }) => make("option", { value: name, textContent: name })));
  if (select) at("model").value = select;
  describe();
}

const chosen = () => models.find(({ name }) => name === at("model").value);

function describe() {
  const model = chosen();
  if (!model) {
    at("about").textContent = "No model is loaded: train one in the other tab.";
    return;
  }
  const parts = [`${model.method} on ${model.backbone}; classes: ${model.classes.join(", ")}.`];
  if (!model.prediction_sets) parts.push("It has no prediction sets (train with --alpha).");
  if (!model.knows_unlike_images) parts.push("It cannot tell images that are unlike its training images.");
  if (model.changed_on_disk) parts.push("Its folder has changed since the server started; restart the server to use the new one.");
  at("about").textContent = parts.join(" ");
}

// What is chosen now; a card keeps it, so that an explanation is of the image that was predicted.
const choices = () => ({ model: at("model").value, window: at("window").value.trim(), frame: at("frame").value.trim() });

function address(path, values) {
  const given = Object.entries(values).filter(([, value]) => value);
  return `${path}?${new URLSearchParams(given)}`;
}

function form(file) {
  const body = new FormData();
  body.append("file", file, file.name);
  return body;
}

async function predict(files, asked) {
  let rows = 0;
  let bad = 0;
  for (const [number, file] of files.entries()) {
    at("state").textContent = `Predicting file ${number + 1} of ${files.length} …`;
    try {
      const answer = await ask(address("/predict", { ...asked, skip_bad: "true" }), { method: "POST", body: form(file) });
      for (const row of answer.predictions) at("results").append(card(row, file, { ...asked, model: answer.model }));
      for (const textContent of answer.notes) at("results").lastChild.append(make("p", { className: "note", textContent }));
      rows += answer.predictions.filter((row) => !row.error).length;
      bad += answer.predictions.filter((row) => row.error).length;
    } catch (error) {
      bad += 1;
      at("results").append(card({ name: file.name, error: error.message }, file));
    }
  }
  at("clear").hidden = false;
  at("state").textContent = `${count(rows, "image")} predicted${bad ? `, ${bad} cannot be used` : ""}.`;
}

// Files that come while others are predicted wait for them.
function add(files) {
  const asked = choices();
  if (files.length) busy = busy.then(() => predict(files, asked));
}

function card(row, file, asked) {
  const item = make("li", { className: "case" });
  const shown = row.error ? null : picture(file, item);
  if (shown) item.append(shown);
  else item.classList.add("plain");
  const body = make("div", {}, make("h3", { textContent: row.name }));
  item.append(body);
  if (row.error) {
    body.append(make("p", { className: "error", textContent: row.error }));
    return item;
  }
  body.append(make("p", { className: "headline", textContent: `${row.prediction}: ${percent(row.probabilities[row.prediction])}` }));
  if (row.unlike_training) body.append(badge("Unlike the training images: do not rely on this answer"));
  if (row.abstain) body.append(badge(`Abstain: the prediction set has ${count(row.set.length, "class").replace("classs", "classes")}`));
  body.append(bars(row));
  if (row.name === file.name || row.name.startsWith(`${file.name}#`)) body.append(reasons(row, file, asked));
  return item;
}

const badge = (textContent) => make("span", { className: "badge", textContent });

// The image as the browser shows it; a file that it does not know, such as DICOM, has no picture.
function picture(file, item) {
  if (!/\.(png|jpe?g|gif|webp|bmp|avif)$/i.test(file.name)) return null;
  const image = make("img", { alt: "", src: URL.createObjectURL(file) });
  image.addEventListener("error", () => {
    image.remove();
    item.classList.add("plain");
  });
  return image;
}

function bars(row) {
  const sorted = Object.entries(row.probabilities).sort((a, b) => b[1] - a[1]);
  const body = make("tbody");
  for (const [name, share] of sorted) {
    const fill = make("span", { className: "fill" });
    fill.style.width = percent(share).replace(" ", "");
    const cells = [
      Object.assign(make("th", { textContent: name }), { scope: "row" }),
      make("td", {}, make("span", { className: "track" }, fill)),
      make("td", { className: "right", textContent: percent(share) }),
    ];
    if (row.set) cells.push(make("td", { className: "set", textContent: row.set.includes(name) ? "in set" : "" }));
    body.append(make("tr", {}, ...cells));
  }
  const titles = [["class", ""], ["probability", ""], ["", "right"], ...(row.set ? [["set", "set"]] : [])];
  const head = make("tr", {}, ...titles.map(([textContent, className]) => make(textContent ? "th" : "td", { textContent, className })));
  return make("table", { className: "bars" }, make("thead", {}, head), body);
}

let controls = 0;

function reasons(row, file, asked) {
  const id = `class-${(controls += 1)}`;
  const select = make("select", { id }, ...Object.keys(row.probabilities).map((name) => make("option", { textContent: name })));
  select.value = row.prediction;
  const button = make("button", { type: "button", textContent: "Explain" });
  button.setAttribute("aria-label", `Explain ${row.name}`);
  const place = make("div", { className: "whole" });
  place.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    button.disabled = true;
    place.replaceChildren(make("p", { textContent: "Explaining …" }));
    const frame = row.name.startsWith(`${file.name}#`) ? { frame: row.name.slice(file.name.length + 1) } : {};
    try {
      const answer = await ask(address("/explain", { ...asked, class: select.value, ...frame }), { method: "POST", body: form(file) });
      place.replaceChildren(explained(answer));
    } catch (error) {
      place.replaceChildren(make("p", { className: "error", textContent: error.message }));
    }
    button.disabled = false;
  });
  const label = make("label", { htmlFor: id, textContent: "Class to explain" });
  return make("div", {}, make("div", { className: "actions" }, make("div", {}, label, select), button), place);
}

function explained(answer) {
  const words = `Saliency map of ${answer.class}, probability ${answer.probability.toFixed(2)}`;
  const scale = make("div", { className: "scale" }, "low", make("i"), "high");
  const grey = answer.values.flat().includes(null) ? " Grey at the edges: not seen by the model." : "";
  const figure = make(
    "figure",
    {},
    make("img", { src: answer.overlay, alt: words }),
    scale,
    make("figcaption", { textContent: `${words} (${answer.map}).${grey} It shows where the score comes from, not that the answer is right.` }),
  );
  const right = make("div");
  for (const textContent of answer.warnings) right.append(make("p", { className: "error", textContent }));
  for (const textContent of answer.notes) if (!answer.warnings.includes(textContent)) right.append(make("p", { className: "note", textContent }));
  for (const side of [answer.sentences.predicted, answer.sentences.rival]) {
    if (!side.most.length) continue;
    right.append(make("h4", { textContent: `Sentences on ${side.class_name} (${side.probability.toFixed(2)}) that the image agrees with most` }));
    right.append(make("ul", {}, ...side.most.map((one) => make("li", { textContent: `${one.text} (cosine ${one.cosine.toFixed(3)})` }))));
  }
  return make("div", { className: "reasons" }, figure, right);
}

at("model").addEventListener("change", describe);
at("files").addEventListener("change", () => {
  add([...at("files").files]);
  at("files").value = "";
});
onDrop(at("drop"), (dropped) => add(dropped.map(({ file }) => file)));
at("clear").addEventListener("click", () => {
  for (const image of at("results").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  at("results").replaceChildren();
  at("state").textContent = "";
  at("clear").hidden = true;
  at("files").focus();
});
loadModels().catch((error) => {
  at("state").textContent = error.message;
});
