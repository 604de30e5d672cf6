/** Errors as clients are told of them, in OpenAI's form. */
import { UserError } from "../errors.ts";

/** Kinds of errors by their status; what is not here is a wrong request. */
const TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  500: "server_error",
  503: "unavailable_error",
};

/** Facts that an {@linkcode ApiError} tells besides its message. */
export interface ApiErrorDetails {
  /** The parameter that is wrong. */
  readonly param?: string | undefined;
  /** A word for programs. */
  readonly code?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A request that is refused. Its message goes to the client: never a stack, never a path. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly details: ApiErrorDetails;

  constructor(readonly status: number, message: string, details: ApiErrorDetails = {}) {
    super(message);
    this.details = details;
  }

  /** `{"error": {...}}` */
  get body(): { readonly error: Readonly<Record<"message" | "type" | "param" | "code", string | null>> } {
    const { param = null, code = null } = this.details;
    return {
      error: { message: this.message, type: TYPES[this.status] ?? "invalid_request_error", param, code },
    };
  }

  toResponse(): Response {
    return Response.json(this.body, { status: this.status, headers: this.details.headers ?? {} });
  }
}

/** The error a client is told of whatever was thrown; what is no fault of the request goes to `log` instead. */
export function apiErrorOf(error: unknown, log: (line: string) => void, param?: string): ApiError {
  if (error instanceof ApiError) return error;
  // The tokenizer names its folder.
  if (error instanceof UserError) {
    const message = error.message.replace(
      /^Cannot use the tokenizer .*?: (?=its |a text )/s,
      "Cannot read the text: ",
    );
    return new ApiError(400, message, { param });
  }
  if (error instanceof RangeError && error.message.startsWith("Maximum call stack")) {
    return new ApiError(400, "The request nests too deeply", { param });
  }
  log(error instanceof Error ? error.stack ?? error.message : String(error));
  return new ApiError(500, "The server could not answer; its log says why");
}
