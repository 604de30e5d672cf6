// The page: a conversation with the model, about documents too. What the model or a document says is shown by
// textContent alone.

/** @param {string} id */
const byId = (id) => document.getElementById(id);

const number = new Intl.NumberFormat("en-US");
const settings = ["temperature", "top_p", "max_tokens", "seed"];

/** What the server says of itself. */
let props;
/** The key that the server wants, if it does: for as long as the page lives. */
let key = "";
/** The turns as the API has them, and what the page shows of each. */
let turns = [];
/** A document that waits for its question: {name, text, tokens}. */
let attached;
/** Ends the answer that is being written. */
let answering;
/** Tokens of the conversation so far. */
let used = 0;

class ServerError extends Error {}

/** A request to this server; asks for its key where it wants one. */
async function ask(path, body, signal) {
  for (;;) {
    const headers = { ...(key && { authorization: `Bearer ${key}` }) };
    if (body) headers["content-type"] = "application/json";
    const response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
    }).catch((error) => {
      if (signal?.aborted) throw error;
      throw new ServerError("The server does not answer. Is it still running?");
    });
    if (response.ok) return response;
    if (response.status !== 401) throw await errorOf(response);
    await askForKey();
  }
}

async function errorOf(response) {
  const { error } = await response.json().catch(() => ({}));
  const later = response.headers.get("retry-after");
  return new ServerError(
    `${error?.message ?? `The server answered ${response.status}`}${
      later ? `. Try again in ${later} s` : ""
    }`,
  );
}

function askForKey() {
  const dialog = byId("key-dialog");
  byId("key-title").textContent = key === "" ? "This server needs its key" : "That is not its key";
  byId("key").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(key = byId("key").value), { once: true });
  });
}

/** The events of a stream: objects, and comments as text. */
async function* events(response) {
  let text = "";
  for await (const piece of pieces(response.body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (text + piece).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith(":")) yield block.slice(1).trim();
      else if (block !== "data: [DONE]") yield JSON.parse(block.slice("data: ".length));
    }
  }
}

async function* pieces(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** What the request asks for besides its messages: what is not set is the server's. */
function sampling() {
  const given = {};
  for (const name of settings) {
    const field = byId(name);
    if (!field.checkValidity()) {
      byId("settings").open = true;
      field.reportValidity();
      throw new ServerError(`Settings, ${name.replace("_", " ")}: ${field.validationMessage}`);
    }
    if (field.value !== "") given[name] = Number(field.value);
  }
  return given;
}

/** The conversation as the API has it: a document and its question are two parts of one turn. */
function messages() {
  const system = byId("system").value.trim();
  return [
    ...(system === "" ? [] : [{ role: "system", content: system }]),
    ...turns.map(({ role, content, attached }) => ({
      role,
      content: attached ? [{ type: "text", text: attached.text }, { type: "text", text: content }] : content,
    })),
  ];
}

/** Puts a turn at the end of the page. */
function show(turn) {
  const item = byId("turn").content.firstElementChild.cloneNode(true);
  const find = (selector) => item.querySelector(selector);
  item.classList.add(turn.role);
  find("h3").textContent = turn.role === "user" ? "You" : props.model;
  if (turn.attached) {
    find(".attached").hidden = false;
    find(".attached").textContent = `${turn.attached.name}, ${number.format(turn.attached.tokens)} tokens`;
  }
  const text = document.createTextNode(turn.content);
  find(".text").append(text);
  find(".copy").addEventListener("click", (event) => copy(turn.content, event.currentTarget));
  find(".again").addEventListener("click", again);
  byId("empty").hidden = true;
  byId("turns").append(item);
  follow(true);
  return {
    item,
    add: (piece) => {
      turn.content += piece;
      text.appendData(piece);
      follow();
    },
    facts: (line) => find(".facts").textContent = line,
  };
}

/** Keeps the end of the conversation in sight, unless the reader has scrolled away from it. */
function follow(always = false) {
  const place = byId("scroll");
  const distance = place.scrollHeight - place.scrollTop - place.clientHeight;
  if (always || distance < 120) place.scrollTop = place.scrollHeight;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https browsers have no clipboard for pages.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => button.textContent = "Copy", 1500);
}

function fail(message) {
  byId("error").hidden = message === "";
  byId("error").textContent = message;
}

function setBusy(isBusy) {
  byId("send").hidden = isBusy;
  byId("stop").hidden = !isBusy;
  byId("turns").ariaBusy = String(isBusy);
  for (const id of ["new", "file"]) byId(id).disabled = isBusy;
  offerAgain();
}

/** Lets the last answer be written anew, and no other. */
function offerAgain() {
  for (const button of document.querySelectorAll(".again")) button.hidden = true;
  const last = byId("turns").lastElementChild;
  if (!answering && last?.classList.contains("assistant")) last.querySelector(".again").hidden = false;
}

function showUsed() {
  const meter = byId("used-meter");
  meter.hidden = used === 0;
  meter.value = used / props.context_size;
  byId("used-text").textContent = used === 0
    ? `${number.format(props.context_size)} tokens of context`
    : `${number.format(used)} of ${number.format(props.context_size)} tokens`;
}

/** Lets the model answer the turns there are. @returns whether anything came */
async function answer() {
  fail("");
  const given = sampling();
  const turn = { role: "assistant", content: "" };
  const shown = show(turn);
  shown.item.classList.add("writing");
  answering = new AbortController();
  setBusy(true);
  byId("status").textContent = "Sent";
  let usage;
  let reason = "";
  let first;
  try {
    const request = { model: props.model, messages: messages(), ...given };
    const response = await ask("v1/chat/completions", {
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    }, answering.signal);
    for await (const event of events(response)) {
      if (typeof event === "string") {
        byId("status").textContent = progressOf(event) ?? byId("status").textContent;
      } else if (event.error) throw new ServerError(event.error.message);
      else {
        usage = event.usage ?? usage;
        const [choice] = event.choices;
        reason = choice?.finish_reason ?? reason;
        if (!choice?.delta.content) continue;
        first ??= performance.now();
        byId("status").textContent = "Writing";
        shown.add(choice.delta.content);
      }
    }
  } catch (error) {
    reason = "stopped";
    if (!answering.signal.aborted) {
      reason = "broken off";
      fail(error instanceof ServerError ? error.message : "The connection to the server was lost");
    }
  }
  shown.item.classList.remove("writing");
  answering = undefined;
  if (turn.content === "" && reason !== "stop" && reason !== "length") {
    shown.item.remove();
    byId("status").textContent = reason === "stopped" ? "Stopped" : "";
    setBusy(false);
    return false;
  }
  turns.push(turn);
  if (usage) used = usage.total_tokens;
  showUsed();
  shown.facts(factsOf(usage, reason, first));
  byId("status").textContent = reason === "stop" ? "Answered" : "";
  setBusy(false);
  follow();
  return true;
}

/** What a comment of the stream says of the time before the answer. */
function progressOf(comment) {
  const [, ahead] = /^waiting behind (\d+)$/.exec(comment) ?? [];
  if (ahead > 0) return `Waiting: ${ahead} before this one`;
  const [, done, total] = /^read (\d+) of (\d+)$/.exec(comment) ?? [];
  if (total > 1024) return `Reading: ${Math.floor(100 * done / total)} % of ${number.format(total)} tokens`;
  return undefined;
}

function factsOf(usage, reason, first) {
  const end = { length: "cut at the limit", stopped: "stopped", "broken off": "broken off" }[reason];
  if (!usage) return end ?? "";
  const seconds = (performance.now() - first) / 1000;
  const { completion_tokens: count, prompt_tokens_details: { cached_tokens: cached } } = usage;
  const rate = count > 1 && seconds > 0.05 ? `, ${((count - 1) / seconds).toFixed(0)} a second` : "";
  const kept = cached > 0
    ? `; ${number.format(cached)} of ${number.format(usage.prompt_tokens)} read before`
    : "";
  return `${number.format(count)} tokens${rate}${kept}${end ? `; ${end}` : ""}`;
}

async function send() {
  const field = byId("question");
  const content = field.value.trim();
  if (answering || !props || content === "") return;
  const turn = { role: "user", content, attached };
  turns.push(turn);
  const { item } = show(turn);
  field.value = "";
  grow();
  let isAnswered = false;
  try {
    isAnswered = await answer();
  } catch (error) {
    fail(error.message);
  }
  if (isAnswered) {
    if (turn.attached) {
      detach();
      sayOfDocument(`${turn.attached.name} is part of this conversation`);
    }
  } else {
    // It is as if it had not been asked: it can be mended, and sent again.
    turns.pop();
    item.remove();
    byId("empty").hidden = turns.length > 0;
    offerAgain();
    if (field.value === "") field.value = content;
    grow();
  }
  field.focus();
}

/** Lets the model answer the last question once more. */
async function again() {
  if (answering) return;
  const before = turns.pop();
  const item = byId("turns").lastElementChild;
  item.hidden = true;
  let isAnswered = false;
  try {
    isAnswered = await answer();
  } catch (error) {
    fail(error.message);
  }
  if (isAnswered) item.remove();
  else {
    turns.push(before);
    item.hidden = false;
    setBusy(false);
  }
}

function startAgain() {
  turns = [];
  used = 0;
  if (!attached) sayOfDocument("");
  byId("turns").replaceChildren();
  byId("empty").hidden = false;
  byId("status").textContent = "";
  fail("");
  showUsed();
  byId("question").focus();
}

function detach() {
  attached = undefined;
  byId("document").hidden = true;
  byId("file").value = "";
}

function sayOfDocument(text, isWrong = false) {
  const place = byId("document-state");
  place.textContent = text;
  place.classList.toggle("wrong", isWrong);
}

/** Reads a file, counts its tokens, and lets it wait for a question; a file that is too long is refused. */
async function attach(file) {
  if (!file || !props || answering) return;
  detach();
  try {
    sayOfDocument(`Reading ${file.name}`);
    const text = /\.pdf$/i.test(file.name) ? await pdfText(file) : await plainText(file);
    if (text.trim() === "") throw new ServerError(`${file.name} has no text`);
    sayOfDocument(`Counting the tokens of ${file.name}`);
    const { count } = await (await ask("tokenize", { content: text })).json();
    if (used + count >= props.context_size) {
      const before = used > 0 ? `, of which this conversation has ${number.format(used)}` : "";
      throw new ServerError(
        `${file.name} has ${number.format(count)} tokens: too long for a context of ${
          number.format(props.context_size)
        }${before}`,
      );
    }
    attached = { name: file.name, text, tokens: count };
    byId("document-name").textContent = file.name;
    byId("document-tokens").textContent = `${number.format(count)} of ${
      number.format(props.context_size)
    } tokens`;
    byId("document-meter").value = count / props.context_size;
    byId("document").hidden = false;
    sayOfDocument("It goes with your next question");
    byId("question").focus();
  } catch (error) {
    sayOfDocument(error.message, true);
    byId("file").value = "";
  }
}

async function plainText(file) {
  checkSize(file, file.size, props.max_body_bytes);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const mark = `${bytes[0]},${bytes[1]}`;
  const encoding = { "255,254": "utf-16le", "254,255": "utf-16be" }[mark] ?? "utf-8";
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new ServerError(`${file.name} is no text in UTF-8 or UTF-16`);
  }
}

async function pdfText(file) {
  checkSize(file, file.size * 4 / 3, props.max_document_bytes);
  const { promise, resolve, reject } = Promise.withResolvers();
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(new ServerError(`${file.name} cannot be read`));
  reader.readAsDataURL(file);
  const data = (await promise).replace(/^[^,]*,/, "");
  const { text, pages, scanned } = await (await ask("extract", { data })).json();
  if (scanned.length > 0) {
    fail(
      `${scanned.length} of the ${pages} pages of ${file.name} are images without text: the model cannot read them`,
    );
  }
  return text;
}

function checkSize(file, bytes, most) {
  if (bytes <= most) return;
  const inMega = (value) => `${(value / 2 ** 20).toFixed(1)} MiB`;
  throw new ServerError(
    `${file.name} has ${inMega(file.size)}: longer than this server takes (${inMega(most)} as sent)`,
  );
}

/** Makes the field as high as what is in it. */
function grow() {
  const field = byId("question");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

function listen() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  byId("question").addEventListener("input", grow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") answering?.abort();
  });
  byId("stop").addEventListener("click", () => {
    answering?.abort();
    byId("question").focus();
  });
  byId("new").addEventListener("click", startAgain);
  byId("remove").addEventListener("click", () => {
    detach();
    sayOfDocument("");
    byId("file").focus();
  });
  byId("file").addEventListener("change", (event) => attach(event.currentTarget.files[0]));
  // Anywhere on the page, so that a file that misses the field is not opened in place of it.
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      const isOver = name === "dragenter" || name === "dragover";
      document.body.classList.toggle("dragged", isOver);
      if (name === "drop") attach(event.dataTransfer.files[0]);
    });
  }
}

async function start() {
  listen();
  for (;;) {
    try {
      props = await (await ask("props")).json();
      break;
    } catch (error) {
      byId("model").textContent = error.message;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
  byId("model").textContent = props.model;
  document.title = `${props.model}, Longreach`;
  byId("template-note").hidden = props.chat_template !== "no";
  byId("max_tokens").placeholder = `${Math.min(props.max_tokens ?? Infinity, props.context_size)}`;
  showUsed();
}

start();
