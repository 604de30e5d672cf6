/** MMLU (Hendrycks et al. 2021): the likeliest of four letters, which shows whether an extended model still knows what it knew. */
import { lockFolder } from "../checkpoint/lock.ts";
import { createHash, join } from "../checkpoint/deps.ts";
import { RowEncoder, type TemplateChoice } from "../data/encode.ts";
import { exchange } from "../data/templates.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { freeBatch, makeBatch } from "../model/batch.ts";
import type { WorkHooks } from "../model/hooks.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { formatCount } from "../text.ts";
import { notFinite } from "./measured_model.ts";
import { ResultsFile, type Settings } from "./results_file.ts";
import { readTaskRows } from "./task_rows.ts";
import { mean, type OutputOptions } from "./trials.ts";
import { checkSpellable } from "./wording.ts";

const LETTERS = ["A", "B", "C", "D"] as const;

/** Subjects of each category but the last, which has all others that MMLU has. */
const SUBJECTS: Readonly<Record<string, string>> = {
  STEM:
    `abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics
    college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics
    high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics high_school_physics
    high_school_statistics machine_learning`,
  "Social Sciences": `econometrics high_school_geography high_school_government_and_politics
    high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
    professional_psychology public_relations security_studies sociology us_foreign_policy`,
  Humanities: `formal_logic high_school_european_history high_school_us_history high_school_world_history
    international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
    professional_law world_religions`,
  Others:
    `anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing
    medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology`,
};

/** Category by subject. */
const CATEGORY: ReadonlyMap<string, string> = new Map(
  Object.entries(SUBJECTS).flatMap(([category, names]) =>
    names.trim().split(/\s+/).map((name) => [name, category] as const)
  ),
);

/** Number of MMLU's subjects. */
export const NUM_SUBJECTS: number = CATEGORY.size;

/** One question. */
export interface MmluQuestion {
  readonly where: string;
  readonly query: string;
  /** With underscores, as MMLU names it. */
  readonly subject: string;
  readonly choices: readonly string[];
  /** Place of the right one among the choices. */
  readonly answer: number;
}

/**
 * Reads questions.
 * @throws {UserError} naming `file:line` of a row that lacks `query`, `subject`, four `choices`, or `answer` from 0 to 3
 */
export async function readMmlu(path: string): Promise<MmluQuestion[]> {
  const questions: MmluQuestion[] = [];
  for await (const row of readTaskRows(path)) {
    const choices = row.texts("choices");
    const answer = row.number("answer");
    if (choices.length !== 4) throw row.refusal(`"choices" must be four, got ${choices.length}`);
    if (LETTERS[answer] === undefined) throw row.refusal(`"answer" must be from 0 to 3, got ${answer}`);
    const subject = row.text("subject").trim().toLowerCase().replaceAll(/[\s-]+/g, "_");
    questions.push({ where: row.where, query: row.text("query"), subject, choices, answer });
  }
  return questions;
}

/** Words a question, in our own wording; examples of the same subject stand before it. */
function promptOf(question: MmluQuestion, shots: readonly MmluQuestion[]): string {
  const asked = ({ query, choices }: MmluQuestion) =>
    `${query.trim()}\n${choices.map((text, i) => `${LETTERS[i]}. ${text}`).join("\n")}\nAnswer:`;
  return [
    `Choose the right answer to a question about ${question.subject.replaceAll("_", " ")}.`,
    ...shots.map((shot) => `${asked(shot)} ${LETTERS[shot.answer]}`),
    asked(question),
  ].join("\n\n");
}

/** A question with each letter as its answer. */
export interface EncodedQuestion {
  readonly subject: string;
  readonly answer: number;
  /** Ids up to the letter's last, and labels of the letter's own tokens alone, for each letter. */
  readonly sequences: readonly { readonly inputIds: Uint32Array; readonly labels: Int32Array }[];
}

/**
 * Encodes questions with each letter as the assistant's turn. What all four turns end with, as the end of a turn, is no
 * target: only letters are compared.
 *
 * @param shots examples before each question, of its subject, in the order of `examples`
 * @throws {UserError} if a subject has fewer examples, or the tokenizer lacks the letters
 */
export function encodeMmlu(
  questions: readonly MmluQuestion[],
  tokenizer: Tokenizer,
  { template, shots = 0, examples = [] }: {
    readonly template: TemplateChoice;
    readonly shots?: number;
    readonly examples?: readonly MmluQuestion[];
  },
): EncodedQuestion[] {
  checkSpellable(LETTERS, tokenizer, "mmlu", "Take a model whose tokenizer knows letters");
  const encoder = new RowEncoder(tokenizer, { template });
  return questions.map((question) => {
    const own = examples.filter(({ subject }) => subject === question.subject).slice(0, shots);
    if (own.length < shots) {
      throw new UserError(
        `Cannot ask ${question.where} with ${shots} examples: there are ${own.length} of ${question.subject}. ` +
          "Lower --few_shot, or name a --train_data that has more",
      );
    }
    const prompt = promptOf(question, own);
    const encoded = LETTERS.map((letter) =>
      encoder.encode({ where: question.where, row: { kind: "chat", messages: exchange(prompt, letter) } })
    );
    // Tokens that all of them end with.
    const first = encoded[0]!.ids;
    let same = 0;
    while (encoded.every(({ ids }) => ids.at(-1 - same) === first.at(-1 - same)) && same < first.length) {
      same++;
    }
    return {
      subject: question.subject,
      answer: question.answer,
      sequences: encoded.map(({ ids, labels }) => ({
        inputIds: ids.subarray(0, ids.length - same),
        labels: labels.subarray(0, ids.length - same),
      })),
    };
  });
}

/** Hashes what the model is asked: SHA-256 in hex. */
export function hashQuestions(questions: readonly EncodedQuestion[]): string {
  const hash = createHash("sha256");
  for (const { answer, sequences } of questions) {
    hash.update(`${answer}\n`);
    for (const { inputIds } of sequences) hash.update(new Uint8Array(inputIds.slice().buffer));
  }
  return hash.digest("hex");
}

/** An answer: a row of `results.jsonl`. */
export interface MmluAnswer {
  readonly index: number;
  readonly subject: string;
  /** Place of the right letter. */
  readonly answer: number;
  /** Place of the likeliest letter. */
  readonly pick: number;
  /** Mean loss of each letter's tokens, in nats. */
  readonly losses: readonly number[];
}

/** Shares of right answers. */
export interface MmluScores {
  readonly subjects: readonly {
    readonly subject: string;
    readonly rows: number;
    readonly accuracy: number;
  }[];
  /** Means over the subjects of each category that were measured. */
  readonly categories: readonly { readonly category: string; readonly accuracy: number }[];
  /** Mean over subjects. */
  readonly all: number;
}

/** Scores answers: a mean over subjects, each of which weighs the same. */
export function scoreMmlu(answers: readonly MmluAnswer[]): MmluScores {
  const subjects = [...new Set(answers.map(({ subject }) => subject))].sort().map((subject) => {
    const own = answers.filter((row) => row.subject === subject);
    return {
      subject,
      rows: own.length,
      accuracy: mean(own.map(({ pick, answer }) => pick === answer ? 1 : 0)),
    };
  });
  const categories = Object.keys(SUBJECTS).flatMap((category) => {
    const own = subjects.filter(({ subject }) => CATEGORY.get(subject) === category);
    return own.length === 0 ? [] : [{ category, accuracy: mean(own.map(({ accuracy }) => accuracy)) }];
  });
  return { subjects, categories, all: mean(subjects.map(({ accuracy }) => accuracy)) };
}

/**
 * Asks the questions that have no answer in the folder's `results.jsonl` yet.
 *
 * @param options.batchSize questions of one forward pass, four sequences each
 * @throws {UserError} if the folder has answers of other settings, or a loss is not finite
 */
export async function measureMmlu(
  model: LanguageModel,
  questions: readonly EncodedQuestion[],
  { outputDir, overwrite = false, settings, batchSize }: OutputOptions & {
    readonly settings: Settings;
    readonly batchSize: number;
  },
  hooks: WorkHooks = {},
): Promise<MmluScores> {
  using _lock = await lockFolder(outputDir);
  const path = join(outputDir, "results.jsonl");
  using file = await ResultsFile.open<MmluAnswer>(path, { task: "mmlu", ...settings }, { isNew: overwrite });
  const known = new Map(file.rows.map((row) => [row.index, row]));
  const todo = [...questions.keys()].filter((index) => !known.has(index));
  if (todo.length < questions.length) {
    hooks.note?.(
      `${formatCount(questions.length - todo.length)} of ${questions.length} answers are in ${path} already`,
    );
  }
  for (let at = 0; at < todo.length; at += batchSize) {
    const indices = todo.slice(at, at + batchSize);
    const batch = makeBatch(indices.flatMap((index) => questions[index]!.sequences));
    const device = model.upload(batch);
    const { losses } = await model.predict(device);
    freeBatch(device);
    for (const [i, index] of indices.entries()) {
      const { subject, answer, sequences } = questions[index]!;
      const each = sequences.map(({ labels }, letter) => {
        const start = batch.starts[4 * i + letter]!;
        // Row r holds the loss of the token behind it.
        const own = [...labels.keys()].filter((t) => t > 0 && labels[t]! >= 0).map((t) =>
          losses[start + t - 1]!
        );
        return mean(own);
      });
      if (!each.every(Number.isFinite)) throw notFinite(`question ${index + 1}`, model);
      const row = { index, subject, answer, pick: each.indexOf(Math.min(...each)), losses: each };
      known.set(index, row);
      await file.add(row);
    }
    hooks.onProgress?.(Math.min(at + batchSize, todo.length), todo.length);
  }
  const answers = questions.map((_, index) => known.get(index)!);
  const unknown = [...new Set(answers.map(({ subject }) => subject))].filter((name) => !CATEGORY.has(name));
  if (unknown.length > 0) {
    hooks.note?.(`MMLU has no ${unknown.join(", ")}: of no category, and part of the mean over all`);
  }
  return scoreMmlu(answers);
}
