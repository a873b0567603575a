// The browser of responses: filters, a list, and one response whose tokens are coloured by a number.

const rows = JSON.parse(document.getElementById("response-rows").textContent);
const at = (id) => document.getElementById(id);

const QUANTITIES = {
  advantage: { label: "advantage", signed: true, meaning: "How much better than expected the update takes this token to be.", ends: ["worse", "better"] },
  push: { label: "push", signed: true, flip: true, meaning: "Derivative of the loss by the token's log-probability: where it is negative, the update makes the token likelier.", ends: ["less likely", "likelier"] },
  log_ratio: { label: "log-ratio", signed: true, meaning: "Log-probability for the learner minus that for the sampler, in nats.", ends: ["sampler", "learner"] },
  sampled_entropy: { label: "entropy", meaning: "Entropy of the next-token distribution the token was drawn from, nats. Strong: an open choice." },
  sampled_logp: { label: "log-prob", meaning: "Log-probability of the token when it was drawn, nats. Strong: a surprise." },
};
const NAMES = { ...Object.fromEntries(Object.entries(QUANTITIES).map(([k, q]) => [k, q.label])), weight: "weight" };
const MOST_COLOUR = 72; // percent; text stays readable on it in both themes

const severalLevels = new Set(rows.map((row) => row.level)).size > 1;

const state = { split: "", step: "", level: "", verdict: "", search: "", row: null, wanted: "advantage" };

// --- numbers ---------------------------------------------------------------------------------------------

const value = (row, name, i) => (Array.isArray(row[name]) ? row[name][i] : row[name] ?? null);
const has = (row, name) => row[name] !== undefined && row[name] !== null;

function show(x, digits = 3) {
  if (x === null || x === undefined) return "–";
  if (x === 0) return "0";
  const text = Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5 ? String(Number(x.toPrecision(digits))) : x.toExponential(1);
  return text.replace("-", "−");
}

const extents = {};
function extent(name) { // the 98th percentile of the size over all responses: one scale for all of them
  if (!(name in extents)) {
    const sizes = [];
    for (const row of rows) if (has(row, name)) row.pieces.forEach((_, i) => sizes.push(Math.abs(value(row, name, i) ?? 0)));
    sizes.sort((a, b) => a - b);
    extents[name] = sizes[Math.min(sizes.length - 1, Math.floor(sizes.length * 0.98))] || sizes.at(-1) || 1;
  }
  return extents[name];
}

const hue = (name, x) => (!QUANTITIES[name].signed ? "--open" : x > 0 !== Boolean(QUANTITIES[name].flip) ? "--up" : "--down");
const mix = (variable, share) => `color-mix(in oklab, var(${variable}) ${(share * MOST_COLOUR).toFixed(1)}%, transparent)`;
const paint = (name, x) => (x === null ? "transparent" : mix(hue(name, x), Math.min(1, Math.abs(x) / extent(name))));

// --- making elements -------------------------------------------------------------------------------------

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  for (const [name, said] of Object.entries(attributes)) element.setAttribute(name, said);
  return element;
}

function options(select, name, told) {
  const values = [...new Set(rows.map((row) => row[name]))];
  if (typeof values[0] === "number") values.sort((a, b) => a - b);
  select.append(make("option", "all", { value: "" }), ...values.map((v) => make("option", told(v), { value: v })));
  select.closest("label").hidden = values.length < 2;
  select.addEventListener("change", () => { state[name] = select.value; list(); });
}

function choice(box, entries, current, chosen) {
  box.replaceChildren(...Object.entries(entries).map(([key, entry]) => {
    const button = make("button", entry.label, { type: "button", "data-key": key, "aria-pressed": key === current, title: entry.title ?? "" });
    button.disabled = Boolean(entry.off);
    button.addEventListener("click", () => chosen(key));
    return button;
  }));
}

const verdict = (row) => make("b", row.correct ? "✓" : "✗", { class: row.correct ? "is-right" : "is-wrong", title: row.correct ? "right" : "wrong" });

// --- the list --------------------------------------------------------------------------------------------

function matches(row) {
  const same = (name) => state[name] === "" || String(row[name]) === state[name];
  const judged = state.verdict === "" || (state.verdict === "right") === Boolean(row.correct);
  const word = state.search.toLowerCase();
  const text = () => `${row.prompt}\n${row.pieces.join("")}\n${row.answer}`.toLowerCase();
  return same("split") && same("step") && same("level") && judged && (!word || text().includes(word));
}

function list() {
  const found = rows.filter(matches);
  at("found").textContent = `${found.length} of ${rows.length}`;
  at("list").replaceChildren(...found.map((row) => {
    const item = make("li", "", { "data-row": rows.indexOf(row) });
    const where = make("div", "", { class: "where" });
    where.append(make("span", `step ${row.step}`), make("span", row.split), make("span", severalLevels ? `level ${row.level}` : ""), verdict(row));
    item.append(where, make("div", row.pieces.join("").replace(/\s+/g, " ") || "(empty)", { class: "start" }));
    item.addEventListener("click", () => open(row));
    return item;
  }));
  if (!found.length) at("list").append(make("li", "No response is like that.", { class: "none" }));
  if (found.length && !found.includes(state.row)) open(first(found));
  else mark();
}

// What to show before anybody chose: the latest response that the update had something to say about.
function first(found) {
  const told = (row) => has(row, "advantage") && [row.advantage].flat().some((x) => x !== 0);
  return found.findLast(told) ?? found[0];
}

function mark() {
  for (const item of at("list").children) {
    const current = rows[item.dataset.row] === state.row;
    item.setAttribute("aria-current", current);
    if (current) { // scroll the list alone: scrollIntoView would move the page too
      const box = at("list");
      const top = item.offsetTop - box.offsetTop;
      if (top < box.scrollTop) box.scrollTop = top;
      if (top + item.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + item.offsetHeight - box.clientHeight;
    }
  }
}

function move(by) {
  const shown = [...at("list").querySelectorAll("[data-row]")].map((item) => rows[item.dataset.row]);
  const next = shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(state.row) + by))];
  if (next) open(next);
}

// --- one response ----------------------------------------------------------------------------------------

function open(row) {
  state.row = row;
  at("prompt").textContent = row.prompt;
  at("answer").textContent = row.answer || "(none: the judge decides)";
  const numbers = [
    ["verdict", row.correct ? "right" : "wrong"], ["score", show(row.score)], ["reward", show(row.reward)],
    ["tokens", row.length], ["ended", row.finished ? "by itself" : "cut off"], ["split", row.split], ["step", row.step],
    ["level", row.level], ["problem", row.problem],
  ];
  at("numbers").replaceChildren(...numbers.map(([name, said]) => {
    const pair = make("div");
    const tone = name !== "verdict" ? "" : row.correct ? "is-right" : "is-wrong";
    pair.append(make("dt", name), make("dd", String(said), { class: tone }));
    return pair;
  }));
  colour();
  mark();
}

// The quantity that was asked for, or the first that this response has.
const quantityOf = (row) => [state.wanted, ...Object.keys(QUANTITIES)].find((name) => has(row, name));

function colour() {
  const { row } = state;
  const quantity = quantityOf(row);
  const entries = Object.fromEntries(Object.entries(QUANTITIES).map(([name, q]) => {
    const off = !has(row, name);
    return [name, { label: q.label, off, title: off ? "was not recorded for this response" : q.meaning }];
  }));
  choice(at("quantities"), entries, quantity, (name) => { state.wanted = name; colour(); });
  at("tokens").replaceChildren(...row.pieces.flatMap((piece, i) => token(row, piece, i, quantity)));
  siblings(row, quantity);
  if (quantity) legend(row, quantity);
}

function legend(row, quantity) {
  const { signed, flip, meaning, ends } = QUANTITIES[quantity];
  const untrained = row.mask !== undefined && [row.mask].flat().includes(0);
  at("meaning").textContent = meaning + (untrained ? " Struck out: tokens the update leaves out." : "");
  const end = extent(quantity);
  const negative = quantity === "sampled_logp";
  const least = signed ? `${flip ? "+" : "−"}${show(end, 2)} ${ends[0]}` : "0";
  const most = signed ? `${flip ? "−" : "+"}${show(end, 2)} ${ends[1]}` : show(negative ? -end : end, 2);
  at("low").textContent = least;
  at("high").textContent = most;
  at("bar").style.background = signed
    ? `linear-gradient(90deg, ${mix("--down", 1)}, transparent, ${mix("--up", 1)})`
    : `linear-gradient(90deg, transparent, ${mix("--open", 1)})`;
}

const VISIBLE = { "\n": "↵", "\t": "⇥", " ": "␣", "": "∅" };

function token(row, piece, i, quantity) {
  const special = piece.trim() === "" || /^<[^<>\s]+>$/.test(piece);
  const text = piece.trim() === "" ? (piece === "" ? "∅" : [...piece].map((c) => VISIBLE[c] ?? "␣").join("")) : piece;
  const box = make("span", text, { "data-token": i, class: special ? "special" : "" });
  if (quantity) box.style.background = paint(quantity, value(row, quantity, i));
  if (value(row, "mask", i) === 0) box.classList.add("untrained");
  return piece.includes("\n") ? [box, make("br")] : [box];
}

const STRIP = 80; // tokens of another response that are shown; the line is cut anyway

function chip(other, row) {
  const button = make("button", `${other.correct ? "✓" : "✗"} ${show(other.reward ?? other.score, 2)}`, {
    type: "button", class: other.correct ? "is-right" : "is-wrong", "aria-current": other === row,
  });
  button.addEventListener("click", () => open(other));
  return button;
}

function siblings(row, quantity) {
  const same = rows.filter((other) => other.problem === row.problem && other.split === row.split);
  const now = same.filter((other) => other.step === row.step);
  const steps = [...new Set(same.map((other) => other.step))].filter((step) => step !== row.step);
  at("siblings").replaceChildren();
  if (now.length > 1) at("siblings").append(make("h4", `the ${now.length} responses to this problem at step ${row.step}, with their rewards`));
  for (const other of now.length > 1 ? now : []) {
    const line = make("div", "", { class: "other" });
    const strip = make("div", "", { class: "strip tokens" });
    strip.append(...other.pieces.slice(0, STRIP).map((piece, i) => token(other, piece, i, quantity)[0]));
    strip.addEventListener("click", () => open(other));
    line.append(chip(other, row), strip);
    at("siblings").append(line);
  }
  if (steps.length) at("siblings").append(make("h4", "the same problem at other steps"));
  for (const step of steps) {
    const line = make("div", "", { class: "step" });
    line.append(make("span", `step ${step}`), ...same.filter((one) => one.step === step).map((other) => chip(other, row)));
    at("siblings").append(line);
  }
}

// --- the tooltip -----------------------------------------------------------------------------------------

function tell(event) {
  const box = event.target.closest("[data-token]");
  at("tip").hidden = !box;
  if (!box) return;
  const { row } = state;
  const i = Number(box.dataset.token);
  const table = make("table");
  const lines = Object.entries(NAMES).filter(([name]) => has(row, name)).map(([name, label]) => [label, show(value(row, name, i))]);
  if (has(row, "sampled_logp")) lines.push(["probability", show(Math.exp(value(row, "sampled_logp", i)))]);
  lines.push(["position", `${i + 1} of ${row.length}`]);
  if (value(row, "mask", i) === 0) lines.push(["left out", "of the update"]);
  for (const cells of lines) {
    const line = table.insertRow();
    cells.forEach((cell) => { line.insertCell().textContent = cell; });
  }
  at("tip").replaceChildren(make("code", JSON.stringify(row.pieces[i])), table);
  const near = box.getBoundingClientRect();
  const tip = at("tip").getBoundingClientRect();
  const below = near.bottom + 8 + tip.height < innerHeight;
  at("tip").style.left = `${Math.max(8, Math.min(near.left, innerWidth - tip.width - 8))}px`;
  at("tip").style.top = `${below ? near.bottom + 8 : near.top - tip.height - 8}px`;
}

// --- begin -----------------------------------------------------------------------------------------------

function begin() {
  options(at("by-split"), "split", String);
  options(at("by-step"), "step", String);
  options(at("by-level"), "level", String);
  const verdicts = { "": { label: "all" }, right: { label: "right" }, wrong: { label: "wrong" } };
  const judge = (key) => { state.verdict = key; choice(at("by-verdict"), verdicts, key, judge); list(); };
  choice(at("by-verdict"), verdicts, "", judge);
  at("search").addEventListener("input", (event) => { state.search = event.target.value; list(); });
  at("list").addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) { event.preventDefault(); move(by); }
  });
  at("tokens").addEventListener("pointerover", tell);
  at("tokens").addEventListener("pointerleave", () => { at("tip").hidden = true; });
  list();
}

if (rows.length) begin();
