/** A page in a headless Chromium, driven by its DevTools protocol. */

/** A page, and a record of what it did. */
export class Browser implements AsyncDisposable {
  /** Dialogs that opened, errors that were thrown or printed. */
  readonly events: string[] = [];
  /** Addresses that were asked for. */
  readonly requests: string[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, (message: Message) => void>();
  #lastId = 0;

  private constructor(child: Deno.ChildProcess, socket: WebSocket) {
    this.#child = child;
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
  }

  /** Starts it on an empty page. @param folder for its profile */
  static async open(folder: string): Promise<Browser> {
    const flags =
      "--headless=new --no-sandbox --disable-gpu --remote-debugging-port=0 --window-size=1200,800";
    const child = new Deno.Command("sh", {
      args: ["-c", `exec chromium ${flags} --user-data-dir="$0" about:blank`, folder],
      stdout: "null",
      stderr: "piped",
    }).spawn();
    try {
      const socket = new WebSocket(await addressOf(child.stderr));
      await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }));
      const browser = new Browser(child, socket);
      for (const domain of ["Page", "Runtime", "Log", "Network"]) await browser.send(`${domain}.enable`);
      return browser;
    } catch (error) {
      child.kill();
      throw error;
    }
  }

  /** Calls a method of the protocol. */
  async send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.#lastId;
    const { promise, resolve } = Promise.withResolvers<Message>();
    this.#waiting.set(id, resolve);
    this.#socket.send(JSON.stringify({ id, method, params }));
    const { result, error } = await promise;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result!;
  }

  /** The value of an expression in the page. */
  async evaluate(expression: string): Promise<unknown> {
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", options) as {
      result: { value?: unknown };
      exceptionDetails?: { text: string };
    };
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.text}`);
    return result.value;
  }

  /** Waits until an expression is true, at most ten seconds. */
  async until(expression: string): Promise<void> {
    const end = performance.now() + 10_000;
    while (!await this.evaluate(expression).catch(() => false)) {
      if (performance.now() > end) throw new Error(`never: ${expression}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    this.#child.kill();
    await this.#child.status;
  }

  #take({ id, method, params, ...answer }: Message): void {
    if (id !== undefined) {
      this.#waiting.get(id)?.({ id, method, params, ...answer });
      this.#waiting.delete(id);
    } else if (method === "Network.requestWillBeSent") {
      this.requests.push((params as { request: { url: string } }).request.url);
    } else if (method === "Page.javascriptDialogOpening") {
      this.events.push(`dialog ${JSON.stringify(params)}`);
      this.send("Page.handleJavaScriptDialog", { accept: true }).catch(() => {});
    } else if (/^Runtime\.(exceptionThrown|consoleAPICalled)$|^Log\.entryAdded$/.test(method ?? "")) {
      this.events.push(`${method} ${JSON.stringify(params)}`);
    }
  }
}

/** Finds the address that drives a browser's page by the browser's first lines; later ones are read and dropped. */
async function addressOf(lines: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  const reader = lines.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let port: string | undefined;
  while (!port) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`Chromium did not start: ${text}`);
    text += value;
    port = /ws:\/\/[^:]+:(\d+)\//.exec(text)?.[1];
  }
  (async () => {
    while (!(await reader.read()).done);
  })().catch(() => {});
  for (let tries = 0; tries < 100; tries++) {
    const targets: { type: string; webSocketDebuggerUrl: string }[] =
      await (await fetch(`http://127.0.0.1:${port}/json`)).json();
    const page = targets.find(({ type }) => type === "page");
    if (page) return page.webSocketDebuggerUrl;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("Chromium opened no page");
}

interface Message {
  readonly id?: number | undefined;
  readonly method?: string | undefined;
  readonly params?: unknown;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}
