/** Ctrl-C while training: the first one asks for a save, the second one ends the process. */
import { EXIT_INTERRUPTED, type Io } from "./io.ts";

/** SIGTERM is what schedulers send before they kill. */
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];

/** Listens until {@linkcode StopSignal.close}. */
export class StopSignal {
  #asked = false;

  /** @param say shows a line without breaking the progress line */
  constructor(readonly io: Pick<Io, "exit">, readonly say: (line: string) => void) {
    for (const signal of SIGNALS) Deno.addSignalListener(signal, this.#onSignal);
  }

  /** Whether the user has asked to stop. */
  get asked(): boolean {
    return this.#asked;
  }

  #onSignal = (): void => {
    if (this.#asked) this.io.exit(EXIT_INTERRUPTED);
    this.#asked = true;
    this.say("stopping: finishing this step, then saving (Ctrl-C again quits at once)");
  };

  close(): void {
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, this.#onSignal);
  }
}
