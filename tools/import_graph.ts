/** Which file of the project imports which, from their text. Paths are relative to the root, with slashes. */

/** File -> files it imports. */
export type ImportGraph = ReadonlyMap<string, readonly string[]>;

/** Folders that hold no code of the project. */
const SKIPPED = /^(\.|node_modules$|output$|docs$)/;

/** Every import and export specifier of a source text: static, dynamic and type imports. */
export function specifiers(source: string): string[] {
  const code = source.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  return [...code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*["']([^"']+)["']/g)].map((match) => match[1]!);
}

/** TypeScript files of a folder and those below it; `""` is the root. */
export async function* typescriptFiles(root: string, folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(`${root}${folder}`)) {
    const path = folder === "" ? name : `${folder}/${name}`;
    if (isDirectory && !SKIPPED.test(name)) yield* typescriptFiles(root, path);
    else if (!isDirectory && name.endsWith(".ts")) yield path;
  }
}

/** Reads the imports of every TypeScript file. @param root the project's folder, with a slash at its end */
export async function importGraph(root: string): Promise<ImportGraph> {
  const graph = new Map<string, string[]>();
  for await (const path of typescriptFiles(root, "")) {
    const source = await Deno.readTextFile(`${root}${path}`);
    graph.set(
      path,
      specifiers(source).filter((each) => each.startsWith(".")).map((each) => target(path, each)),
    );
  }
  return graph;
}

/** The file that a relative specifier of another one names. */
export function target(path: string, specifier: string): string {
  return decodeURI(new URL(specifier, `file:///${path}`).pathname.slice(1));
}

/** Files that import one of `changed`, directly or through others, with the number of steps; those have 0 themselves. */
export function dependents(graph: ImportGraph, changed: Iterable<string>): Map<string, number> {
  const importers = new Map<string, string[]>();
  for (const [path, imported] of graph) {
    for (const each of imported) importers.set(each, [...importers.get(each) ?? [], path]);
  }
  const steps = new Map([...changed].map((path) => [path, 0]));
  // A Map goes on over what is added while it is walked: nearest first.
  for (const [path, step] of steps) {
    for (const importer of importers.get(path) ?? []) {
      if (!steps.has(importer)) steps.set(importer, step + 1);
    }
  }
  return steps;
}

/** Groups of files that import each other in a circle, each sorted. */
export function circles(graph: ImportGraph): string[][] {
  const groups: string[][] = [];
  const number = new Map<string, number>();
  const lowest = new Map<string, number>();
  const open: string[] = [];
  const onStack = new Set<string>();
  // Tarjan 1972: strongly connected components.
  const visit = (path: string): void => {
    number.set(path, number.size);
    lowest.set(path, number.get(path)!);
    open.push(path);
    onStack.add(path);
    for (const next of graph.get(path) ?? []) {
      if (!number.has(next)) {
        visit(next);
        lowest.set(path, Math.min(lowest.get(path)!, lowest.get(next)!));
      } else if (onStack.has(next)) lowest.set(path, Math.min(lowest.get(path)!, number.get(next)!));
    }
    if (lowest.get(path) !== number.get(path)) return;
    const group = open.splice(open.indexOf(path));
    group.forEach((each) => onStack.delete(each));
    if (group.length > 1 || graph.get(path)?.includes(path)) groups.push(group.sort());
  };
  for (const path of graph.keys()) if (!number.has(path)) visit(path);
  return groups.sort((a, b) => a[0]! < b[0]! ? -1 : 1);
}
