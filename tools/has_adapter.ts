/** Ends with 0 when a WebGPU adapter answers, else with 1: the launcher's question. Needs no permission. */
const adapter = await navigator.gpu?.requestAdapter() ?? null;
Deno.exit(adapter === null ? 1 : 0);
