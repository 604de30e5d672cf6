/** The page keeps to its own security policy, and shows what comes from outside as text alone. */
import { PAGE } from "../../serve/page.ts";
import { assert, assertEquals } from "../support/assert_close.ts";

const html = PAGE["/"]!.text;
const script = PAGE["/app.js"]!.text;
const style = PAGE["/style.css"]!.text;

Deno.test("nothing on the page is made of text from outside, and nothing is fetched from elsewhere", () => {
  for (const [name, text] of Object.entries({ html, script, style })) {
    assert(
      !/https?:|\/\/[a-z]|\burl\(|@import/i.test(text.replaceAll(/^\s*\/\/.*$/gm, "")),
      `${name} names another place`,
    );
  }
  const makers =
    /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|createContextualFragment|\beval\b|new Function|srcdoc/;
  assertEquals(makers.exec(script)?.[0], undefined, "in the script");
  assertEquals(/setTimeout\(\s*["'`]/.exec(script)?.[0], undefined, "text run as a program");
});

Deno.test("script and style stand in files of their own, as the policy wants", () => {
  assertEquals(/\son\w+=|\sstyle=|<style|javascript:/i.exec(html)?.[0], undefined);
  const scripts = [...html.matchAll(/<script\b([^>]*)>([^<]*)<\/script>/g)];
  assertEquals(scripts.map(([, , text]) => text), [""], "no script in the page itself");
  const loaded = [...html.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, path]) => `/${path}`);
  assertEquals(loaded.sort(), Object.keys(PAGE).filter((path) => path !== "/").sort());
});

Deno.test("the script finds what it looks for, and every field has its label", () => {
  const ids = new Set([...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id!));
  const wanted = [...script.matchAll(/byId\("([^"]+)"\)/g)].map(([, id]) => id!);
  assert(wanted.length > 20, "ids in the script");
  assertEquals(wanted.filter((id) => !ids.has(id)), []);
  const fors = [...html.matchAll(/\sfor="([^"]+)"/g)].map(([, id]) => id!);
  assertEquals(fors.filter((id) => !ids.has(id)), []);
  for (const [field, attributes] of html.matchAll(/<(?:input|textarea|meter)\b([^>]*)>/g)) {
    const id = /\sid="([^"]+)"/.exec(attributes!)![1]!;
    const isInside = new RegExp(`<label>[^<]*<[^>]*\\sid="${id}"`).test(html);
    assert(isInside || fors.includes(id) || attributes!.includes("aria-label"), `${field} has no label`);
  }
});
