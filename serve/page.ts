/** The page's files, by their paths: nothing else is ever sent from the disk. */
import script from "./page/app.js" with { type: "text" };
import html from "./page/index.html" with { type: "text" };
import style from "./page/style.css" with { type: "text" };

/** Text and type of each. */
export const PAGE: Readonly<Record<string, { readonly text: string; readonly type: string }>> = {
  "/": { text: html, type: "text/html; charset=utf-8" },
  "/app.js": { text: script, type: "text/javascript; charset=utf-8" },
  "/style.css": { text: style, type: "text/css; charset=utf-8" },
};
