import { commitIter, createRepo, fileExists } from "@huggingface/hub";
import { UserError } from "../errors.ts";
import { pathToFileURL } from "../checkpoint/deps.ts";
import { access } from "./access.ts";
import type { HubPatience } from "./request.ts";
import type { HubSettings } from "./settings.ts";

/** A file for the hub: its bytes, or the path of a file that is read while it is sent. */
export interface UploadFile {
  readonly name: string;
  readonly content: Uint8Array<ArrayBuffer> | string;
}

export interface UploadOptions {
  readonly settings: HubSettings;
  /** Visibility of a new repository; an existing one stays as it is. */
  readonly isPrivate: boolean;
  /** Message of the commit. */
  readonly title: string;
  /** The current stage: `hashing`, `uploading` or `committing`; `file` where it is about one. */
  readonly onProgress?: (what: string, file?: string) => void;
  readonly patience?: HubPatience;
}

/**
 * Puts files into a model repository of the hub as one commit, and makes the repository if there is none.
 * @param repository `org/name`
 * @returns the commit's address
 * @throws {UserError} without a token, or if the hub refuses or cannot be reached; nothing is committed then
 */
export async function uploadFiles(
  repository: string,
  files: readonly UploadFile[],
  { settings, isPrivate, title, onProgress = () => {}, patience }: UploadOptions,
): Promise<string> {
  requireWritable(repository, settings);
  const repo = { type: "model", name: repository } as const;
  try {
    await makeRepository(repo, isPrivate, access(settings, patience));
    const work = commitIter({
      repo,
      title,
      operations: files.map(({ name, content }) => ({
        operation: "addOrUpdate",
        path: name,
        content: typeof content === "string" ? pathToFileURL(content) : new Blob([content]),
      })),
      // Plain storage is what every hub and mirror has.
      useXet: false,
      ...access(settings, patience),
    });
    for (;;) {
      const { done, value } = await work.next();
      if (done) return value?.commit.url ?? `${settings.endpoint}/${repository}`;
      if (value.event === "phase") onProgress(PHASES[value.phase]);
      else if (value.progress === 0) onProgress(value.state, value.path);
    }
  } catch (error) {
    throw explained(repository, settings, error);
  }
}

const PHASES = {
  preuploading: "asking",
  uploadingLargeFiles: "uploading",
  committing: "committing",
} as const;

/** Whether the hub's repository has a file; false where there is no repository. @throws {UserError} if it cannot tell */
export async function hubHasFile(repository: string, path: string, settings: HubSettings): Promise<boolean> {
  requireWritable(repository, settings);
  try {
    return await fileExists({ repo: { type: "model", name: repository }, path, ...access(settings) });
  } catch (error) {
    throw explained(repository, settings, error);
  }
}

async function makeRepository(
  repo: { readonly type: "model"; readonly name: string },
  isPrivate: boolean,
  hub: ReturnType<typeof access>,
): Promise<void> {
  try {
    // The token is in the header that access() sets: given here, the library would check its form.
    await createRepo({
      repo,
      accessToken: "",
      visibility: isPrivate ? "private" : "public",
      ...hub,
    });
  } catch (error) {
    // It is there already.
    if (statusOf(error) !== 409) throw error;
  }
}

function requireWritable(repository: string, { token, offline }: HubSettings): void {
  const refuse = (reason: string): never => {
    throw new UserError(`Cannot upload to ${repository}: ${reason}`, { kind: "usage" });
  };
  if (offline) refuse("HF_HUB_OFFLINE forbids it. Unset it");
  if (token === undefined) {
    refuse(
      "there is no token. Set HF_TOKEN to one that may write, from the hub's settings, or run hf auth login",
    );
  }
}

function statusOf(error: unknown): number | undefined {
  return (error as { statusCode?: number } | null)?.statusCode;
}

function explained(repository: string, { endpoint }: HubSettings, error: unknown): unknown {
  if (error instanceof UserError) return error;
  const status = statusOf(error);
  const message = (error as Error).message;
  if (status === 401 || status === 403) {
    return new UserError(
      `Cannot upload to ${repository}: the hub answers ${status}. The token must be allowed to write there: make one with ` +
        `write access, or choose a name of your own`,
      { cause: error },
    );
  }
  return new UserError(
    status === undefined
      ? `Cannot upload to ${repository} at ${endpoint}: ${message}. Check the network, or HF_ENDPOINT`
      : `Cannot upload to ${repository}: the hub answers ${status} (${message})`,
    { cause: error },
  );
}
