/** Counts in Prometheus' text format. */

/** Help texts; what ends in `_total` only grows. */
const METRICS = {
  longreach_requests_total: "Requests by path and status",
  longreach_answers_total: "Answers by what ended them",
  longreach_prompt_tokens_total: "Tokens of prompts",
  longreach_cached_tokens_total: "Tokens of prompts whose keys and values were there from before",
  longreach_completion_tokens_total: "Tokens written",
  longreach_queue_seconds_total: "Seconds that requests waited for their turn",
  longreach_prompt_seconds_total: "Seconds from a turn's beginning to the first token",
  longreach_write_seconds_total: "Seconds from the first token to the last",
  longreach_requests_running: "Requests whose answer is being written",
  longreach_requests_waiting: "Requests that wait for their turn",
  longreach_device_bytes: "Bytes on the device",
} as const;

export type MetricName = keyof typeof METRICS;

/** Counts so far. */
export class Metrics {
  readonly #values = new Map<MetricName, Map<string, number>>();

  /** Adds to a counter. */
  add(name: MetricName, value = 1, labels: Readonly<Record<string, string>> = {}): void {
    const series = this.#seriesOf(name);
    const key = textOf(labels);
    series.set(key, (series.get(key) ?? 0) + value);
  }

  /** Sets a gauge. */
  set(name: MetricName, value: number): void {
    this.#seriesOf(name).set("", value);
  }

  /** The text that Prometheus reads. */
  toString(): string {
    return Object.entries(METRICS).flatMap(([name, help]) => [
      `# HELP ${name} ${help}`,
      `# TYPE ${name} ${name.endsWith("_total") ? "counter" : "gauge"}`,
      ...[...this.#seriesOf(name as MetricName)].map(([labels, value]) => `${name}${labels} ${value}`),
      "",
    ]).join("\n");
  }

  #seriesOf(name: MetricName): Map<string, number> {
    let series = this.#values.get(name);
    if (!series) this.#values.set(name, series = new Map());
    return series;
  }
}

function textOf(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}
