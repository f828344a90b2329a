// The server's OpenAPI description as a page.

import { ask, at, make } from "./page.js";

const table = (titles, rows) =>
  make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...titles.map((textContent) => Object.assign(make("th", { textContent }), { scope: "col" })))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((textContent) => make("td", { textContent }))))),
  );

const { paths } = await ask("/openapi.json");
for (const [path, methods] of Object.entries(paths)) {
  for (const [method, facts] of Object.entries(methods)) {
    const part = make("section", {}, make("h2", { textContent: `${method.toUpperCase()} ${path}` }), make("p", { textContent: facts.summary ?? "" }));
    const body = facts.requestBody;
    if (body) part.append(make("p", { textContent: `Body: ${Object.keys(body.content).join(", ")}. ${body.description ?? ""}` }));
    const parameters = (facts.parameters ?? []).map((one) => [one.name, one.description ?? ""]);
    if (parameters.length) part.append(table(["parameter", "meaning"], parameters));
    part.append(table(["status", "meaning"], Object.entries(facts.responses).map(([status, one]) => [status, one.description ?? ""])));
    at("addresses").append(part);
  }
}
