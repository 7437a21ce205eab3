"use strict";
// The page of `diffutron serve`: a canvas that one can watch, step back in, and hide words of again. No dependency.

const TEXTS = {
  tr: {
    skip: "İçeriğe geç", language: "Dil", tools: "Araçlar", write: "Yaz", between: "Arayı doldur", masks: "Maske", chat: "Sohbet",
    surprise: "Şaşkınlık", prompt: "Metnin başı (boşsa hiçten yazar)", length: "En çok kaç parça", before: "Öncesi", after: "Sonrası",
    gap: "Aradaki parça sayısı", masked: "[MASK] içeren metin", question: "Soru", forget: "Konuşmayı unut",
    pasted: "Sözcük sözcük ölçülecek metin", settings: "Örnekleme ayarları", go: "Başla", stop: "Durdur", result: "Metin",
    step: "Adım", refill: "Seçilenleri yeniden doldur", click: "Gizlemek için sözcüklere tıklayın.",
    legend: "Alt çizgi ne kadar kalınsa model o kadar kararsızdı.", hidden: "henüz gizli",
    caution: "Küçük bir model: yazdıkları doğru değildir, yalnızca Türkçeye benzer.", routes: "Sunucunun yolları (İngilizce)",
    served: (name) => `${name} modeli`, working: "Yazıyor…", done: (steps) => `${steps} adımda bitti`, stopped: "Durduruldu",
    failed: "Olmadı: ", no_answer: "Model hiçbir şey yazmadı.", nats: "nat", bits: (b, se) => `${b} bit / karakter (standart hata ${se})`,
    masked_score: (p) => `; % 15 maskede şaşkınlık ${p}`, word_title: (n) => `${n} nat`,
    seed: ["Tohum", "Aynı tohum, aynı metin."], temperature: ["Sıcaklık", "0: hep en olası parça; yüksek: daha çeşitli."],
    top_p: ["Top-p", "Olasılıkları toplamı buna varan en olası parçalar."], steps: ["Adım sayısı", "Az adım: bir seferde çok parça; boş: parça başına bir."],
    block_length: ["Blok boyu", "Bloklar soldan sağa, içleri her sırayla dolar."],
    order: ["Sıra", "Önce hangi konum kesinleşir."], well_formed: ["Yazım gözetimi", "Türkçe sözcüğü bozan parçalardan düşülen nat."],
    guidance: ["Yönlendirme", "Başlangıca ne kadar bağlı kalınacağı; iş iki kat."], usual: "olağan",
    confidence: "en emin olunan", margin: "ikinciden en uzak", entropy: "en kesin", random: "rastgele", "left-to-right": "soldan sağa",
    key: "Anahtar gerekli ya da yanlış.", cut: "bağlantı koptu",
  },
  en: {
    skip: "Skip to content", language: "Language", tools: "Tools", write: "Write", between: "Fill between", masks: "Masks", chat: "Chat",
    surprise: "Surprise", prompt: "Beginning of the text (empty: from nothing)", length: "At most so many pieces", before: "Before", after: "After",
    gap: "Pieces between", masked: "A text with [MASK]", question: "Question", forget: "Forget the talk",
    pasted: "A text to measure word by word", settings: "Sampler settings", go: "Go", stop: "Stop", result: "Text",
    step: "Step", refill: "Fill the chosen ones again", click: "Click words to hide them.",
    legend: "The thicker the underline, the less sure the model was.", hidden: "still hidden",
    caution: "A small model: what it writes is not true, it only looks like Turkish.", routes: "Routes of the server",
    served: (name) => `model ${name}`, working: "Writing…", done: (steps) => `done in ${steps} steps`, stopped: "Stopped",
    failed: "That failed: ", no_answer: "The model wrote nothing.", nats: "nats", bits: (b, se) => `${b} bits / character (standard error ${se})`,
    masked_score: (p) => `; masked perplexity at 15 %: ${p}`, word_title: (n) => `${n} nats`,
    seed: ["Seed", "One seed, one text."], temperature: ["Temperature", "0: always the likeliest piece; higher: more variety."],
    top_p: ["Top-p", "The likeliest pieces up to this share."], steps: ["Steps", "Fewer: several pieces at once; empty: one a piece."],
    block_length: ["Block length", "Blocks are filled left to right, any order inside."],
    order: ["Order", "Which position is settled first."], well_formed: ["Well-formedness", "Nats taken from pieces that break a Turkish word."],
    guidance: ["Guidance", "How far to hold to the beginning; twice the work."], usual: "usual",
    confidence: "surest", margin: "furthest from the second", entropy: "most certain", random: "random", "left-to-right": "left to right",
    key: "The key is missing or wrong.", cut: "the connection broke off",
  },
};
const SAMPLER = [
  ["seed", { min: 0, step: 1, value: 0 }], ["temperature", { min: 0, max: 10, step: 0.1 }], ["top_p", { min: 0.05, max: 1, step: 0.05 }],
  ["steps", { min: 1, max: 2048, step: 1 }], ["block_length", { min: 1, max: 1024, step: 1 }],
  ["order", ["", "confidence", "margin", "entropy", "random"]],
  ["well_formed", { min: 0, max: 100, step: 1 }], ["guidance", { min: 0, max: 10, step: 0.5 }],
];
const WHOLE = new Set(["seed", "steps", "block_length", "max_tokens"]);
const $ = (selector) => document.querySelector(selector);
const state = { language: "tr", tool: "write", frames: [], chosen: new Set(), abort: null, talk: [], told: "" };
const t = (name) => TEXTS[state.language][name];

// Words of the page

function speak(language) {
  state.language = language;
  document.documentElement.lang = language;
  try { localStorage.setItem("language", language); } catch { /* private mode */ }
  for (const each of document.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", t(each.dataset.label));
  for (const each of document.querySelectorAll("[data-language]")) each.setAttribute("aria-pressed", String(each.dataset.language === language));
  const kept = settings();
  $("#sampler").replaceChildren(...SAMPLER.map(([name, kind]) => field(name, kind, kept[name])));
  if (state.model) $("#served").textContent = t("served")(state.model);
}

function field(name, kind, kept) {
  const label = document.createElement("label");
  const [title, help] = t(name);
  const input = document.createElement(Array.isArray(kind) ? "select" : "input");
  input.name = name;
  if (Array.isArray(kind)) {
    for (const value of kind) input.append(new Option(value ? t(value) : t("usual"), value));
    if (kept) input.value = kept;
  } else {
    Object.assign(input, { type: "number", placeholder: t("usual"), ...kind });
    if (kept !== undefined) input.value = kept;
  }
  const span = Object.assign(document.createElement("span"), { textContent: title });
  const small = Object.assign(document.createElement("small"), { textContent: help, id: `help-${name}` });
  input.setAttribute("aria-describedby", small.id);
  label.append(span, input, small);
  return label;
}

function settings() {
  const found = {};
  for (const input of document.querySelectorAll("#sampler input, #sampler select")) {
    if (input.value !== "") found[input.name] = input.type === "number" ? number(input) : input.value;
  }
  return found;
}

function number(input) {
  const value = Number(input.value);
  return WHOLE.has(input.name) ? Math.trunc(value) : value;
}

// Tools

function choose(tool) {
  state.tool = tool;
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const on = tab.getAttribute("aria-controls") === tool;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
  }
  for (const panel of document.querySelectorAll('[role="tabpanel"]')) panel.hidden = panel.id !== tool;
  $("#settings").hidden = tool === "masks" || tool === "surprise";
  show_result();
}

function show_result() {
  $("#result").hidden = state.frames.length === 0 || ["masks", "surprise", "chat"].includes(state.tool);
}

function asked() {
  const found = {};
  for (const input of document.querySelectorAll(`#${state.tool} [name]`)) found[input.name] = input.type === "number" ? number(input) : input.value;
  return found;
}

const go = () => attempt(() => ({ write, between, masks, chat, surprise })[state.tool](asked()));

async function attempt(work) {
  say(t("working"));
  busy(true);
  try {
    await work();
  } catch (error) {
    show_talk(state.talk); // without the question that was not answered
    if (error.name === "AbortError") say(t("stopped"));
    else say(t("failed") + error.message, true);
  } finally {
    busy(false);
  }
}

async function write({ prompt, max_tokens }) {
  await diffuse("v1/completions", { prompt, max_tokens, ...settings(), stream: true, diffusing: true });
}

async function between({ prompt, suffix, max_tokens }) {
  await diffuse("v1/completions", { prompt, suffix, max_tokens, ...settings(), stream: true, diffusing: true });
}

async function masks({ text }) {
  const { ways } = await post("v1/fill-mask", { text, top_k: 8 });
  $("#ways").replaceChildren(...ways.map((way) => {
    const item = document.createElement("li");
    item.textContent = `${way.text}  (${(100 * way.score).toFixed(1)} %)`;
    return item;
  }));
  say("");
}

async function chat({ question, max_tokens }) {
  const messages = [...state.talk, { role: "user", content: question }];
  show_talk(messages, "…");
  const body = { messages, max_tokens, ...settings(), stream: true, diffusing: true };
  let text = "", failed;
  for await (const step of events("v1/chat/completions", body)) {
    text = step.text;
    failed = step.failed;
    show_talk(messages, text || "░");
  }
  state.talk = text ? [...messages, { role: "assistant", content: text }] : messages.slice(0, -1);
  show_talk(state.talk);
  if (text) $("#chat [name=question]").value = "";
  say(failed ? t("failed") + failed : text ? "" : t("no_answer"), !text);
}

function show_talk(messages, pending) {
  const lines = pending === undefined ? messages : [...messages, { role: "assistant", content: pending }];
  $("#talk").replaceChildren(...lines.map(({ role, content }) => Object.assign(document.createElement("li"), { className: role, textContent: content })));
}

async function surprise({ text }) {
  const found = await post("v1/perplexity", { text, words: true });
  const round = (value, digits = 2) => value.toLocaleString(state.language, { maximumFractionDigits: digits });
  $("#scores").textContent = t("bits")(round(found.bound.bits_per_character), round(found.bound.standard_error, 3))
    + (found.masked ? t("masked_score")(round(found.masked.perplexity, 1)) : "");
  $("#words").replaceChildren(...found.words.flatMap(({ word, nats }) => {
    const span = Object.assign(document.createElement("span"), { className: "cell", textContent: word, title: t("word_title")(round(nats)) });
    span.style.setProperty("--sure", String(Math.exp(-nats / 4)));
    return [span, " "];
  }));
  say("");
}

// The canvas

async function diffuse(path, body) {
  let begun = false;
  for await (const step of events(path, body)) {
    if (!begun) { // what was there stays until there is something else
      begun = true;
      state.frames = [];
      state.chosen.clear();
    }
    state.frames.push(step);
    show_result();
    $("#slider").max = String(state.frames.length);
    $("#slider").value = $("#slider").max;
    draw();
  }
  const last = state.frames.at(-1);
  say(last?.failed ? t("failed") + last.failed : t("done")(state.frames.length), Boolean(last?.failed));
}

function draw() {
  const number = Number($("#slider").value);
  const frame = state.frames[number - 1];
  if (!frame) return;
  $("#step-number").textContent = `${number} / ${state.frames.length}`;
  const final = number === state.frames.length && !state.abort;
  $("#canvas").replaceChildren(...frame.cells.map(([text, sure], place) => cell(text, sure, place, final)));
  $("#refill").disabled = state.chosen.size === 0 || $("#go").disabled;
}

function cell(text, sure, place, final) {
  const can_be_chosen = final && text !== null && sure !== undefined;
  const found = document.createElement(can_be_chosen ? "button" : "span");
  found.className = "cell";
  found.textContent = text ?? "░";
  if (text === null) found.classList.add("hidden");
  else if (sure === undefined) found.classList.add("given");
  else {
    found.style.setProperty("--sure", String(sure));
    found.title = `${(100 * sure).toFixed(0)} %`;
  }
  if (can_be_chosen) {
    found.type = "button";
    found.setAttribute("aria-pressed", String(state.chosen.has(place)));
    found.addEventListener("click", () => {
      if (!state.chosen.delete(place)) state.chosen.add(place);
      draw();
      $("#canvas").children[place].focus();
    });
  }
  return found;
}

async function refill() {
  const cells = state.frames.at(-1).cells;
  const gone = (place) => place < cells.length && (state.chosen.has(place) || cells[place][0] === null); // a stopped text has gaps
  let text = "";
  for (let place = 0; place < cells.length; place += 1) {
    if (!gone(place)) { text += cells[place][0]; continue; }
    let run = 1;
    while (gone(place + run)) run += 1;
    if (cells[place][0]?.startsWith(" ") ?? !/\s$/.test(text)) text += " ";
    text += `[MASK:${run}]`;
    place += run - 1;
  }
  await attempt(() => {
    const input = $("#sampler [name=seed]");
    input.value = String((settings().seed ?? 0) + 1); // another try, not the same again
    return diffuse("v1/infill", { text, ...settings(), stream: true });
  });
}

// The server

async function request(path, body) {
  state.abort = new AbortController();
  const response = await fetch(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: state.abort.signal,
  });
  if (response.ok) return response;
  let message = `${response.status}`;
  try { message = (await response.json()).error.message; } catch { /* no JSON */ }
  throw new Error(response.status === 401 ? t("key") : message);
}

async function post(path, body) {
  return (await request(path, body)).json();
}

async function* events(path, body) {
  const reader = (await request(path, body)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(t("cut"));
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const step = JSON.parse(data);
      if (step.error) throw new Error(step.error.message);
      yield step;
    }
  }
}

function say(text, is_error = false) {
  $("#status").textContent = text;
  $("#status").classList.toggle("error", is_error);
}

function busy(on) {
  $("#talk").setAttribute("aria-busy", String(on));
  $("#go").disabled = on;
  $("#stop").disabled = !on;
  $("#forget").disabled = on;
  if (!on) state.abort = null;
  draw();
}

// Begin

for (const each of document.querySelectorAll("[data-sure]")) each.style.setProperty("--sure", each.dataset.sure);
for (const tab of document.querySelectorAll('[role="tab"]')) {
  tab.addEventListener("click", () => choose(tab.getAttribute("aria-controls")));
  tab.addEventListener("keydown", (event) => {
    const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!turn) return;
    const tabs = [...document.querySelectorAll('[role="tab"]')];
    const next = tabs[(tabs.indexOf(tab) + turn + tabs.length) % tabs.length];
    next.focus();
    choose(next.getAttribute("aria-controls"));
  });
}
for (const each of document.querySelectorAll("[data-language]")) each.addEventListener("click", () => speak(each.dataset.language));
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("#go").disabled) go();
});
$("#go").addEventListener("click", go);
$("#stop").addEventListener("click", () => state.abort?.abort());
$("#slider").addEventListener("input", draw);
$("#refill").addEventListener("click", refill);
$("#forget").addEventListener("click", () => { state.talk = []; show_talk([]); });
let language = navigator.language.startsWith("tr") ? "tr" : "en";
try { language = localStorage.getItem("language") ?? language; } catch { /* private mode */ }
speak(language in TEXTS ? language : "en");
choose("write");
fetch("v1/models").then((found) => found.json()).then(({ data }) => { state.model = data[0].id; $("#served").textContent = t("served")(state.model); }).catch(() => {});
