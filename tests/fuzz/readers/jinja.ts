/** Chat templates of models. */
import { jinjaTemplate } from "../../../data/jinja.ts";
import { assert } from "../../support/assert_close.ts";
import { asText, mutateText, utf8 } from "../mutate.ts";
import type { Reader } from "../reader.ts";

const SOURCES = [
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = " +
  "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}" +
  "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}" +
  "{{ raise_exception('Roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}" +
  "{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% else %}{{ ' ' + message['content'] | trim + " +
  "eos_token }}{% endif %}{% endfor %}",
  "{%- macro show(x) -%}{{ x | upper }}{%- endmacro -%}{% for i in range(3) %}{{ show(i | string) }}{% endfor %}" +
  "{% for m in messages %}{{ m.content }}{% generation %}{{ eos_token }}{% endgeneration %}{% endfor %}",
];
const TOKENS = [
  "{%",
  "%}",
  "{{",
  "}}",
  "{#",
  "#}",
  "{%-",
  "-%}",
  "'",
  '"',
  "(",
  ")",
  "[",
  "]",
  " | ",
  " + ",
  " * ",
  " ~ ",
  "range(10)",
  "range(1000000000)",
  "messages",
  "messages[0]",
  "constructor",
  ".constructor.constructor('return 1')()",
  "__proto__",
  "loop.index",
  "{% for a in messages %}",
  "{% endfor %}",
  "{% set x = [1] * 1000 %}",
  "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
  "{{ 'a' * 100000000 }}",
  "{% include 'x' %}",
  "namespace(a=1)",
  "| join(',')",
  "| tojson",
  "| length",
  "((((((((",
  "not ",
  " is defined ",
  " in ",
  "-1",
  "1e999",
  "none",
];
const MESSAGES = [
  { role: "system", content: "Be brief" },
  { role: "user", content: "Hi <|im_end|>" },
  { role: "assistant", content: " Hello " },
  { role: "user", content: "Why?" },
  { role: "assistant", content: "So" },
] as const;

export const reader: Reader = {
  everyday: 300,
  accepted: [0.02, 0.95],
  make: (dice) => utf8(mutateText(dice, dice.pick(SOURCES), TOKENS)),
  read(input) {
    const template = jinjaTemplate(asText(input), { bos: "<s>", eos: "</s>" });
    for (const { text } of template.render(MESSAGES)) {
      assert(typeof text === "string", "a segment is no text");
    }
  },
};
