/** The record of a session's life, as `GET …/lifecycle` gives it. Times are ISO 8601 UTC. */
export interface Lifecycle {
  readonly appName: string;
  readonly userId: string;
  readonly sessionId: string;
  readonly status: "waiting" | "used" | "expired" | "orphan" | "archived";
  readonly hasMessages: boolean;
  readonly createdAt: string;
  readonly firstMessageAt: string | null;
  readonly ttlMinutes: number | null;
  readonly expiresAt: string | null;
  readonly expiredAt: string | null;
  readonly restorableUntil: string | null;
  readonly resurrections: number;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly archivedAt: string | null;
  readonly pinned: boolean;
  readonly onHold: boolean;
  readonly serverTime: string;
}

export type NoticeKind =
  | "lifecycle" | "expiring" | "extended" | "expired" | "resurrected" | "used" | "archiving"
  | "archived" | "restored" | "deleted";

/** What happened, and the record after it; for `deleted` the last one known, if any. */
export interface Notice<Kind extends NoticeKind = NoticeKind> {
  readonly kind: Kind;
  readonly record: Kind extends "deleted" ? Lifecycle | null : Lifecycle;
  /** Of `expiring` and `archiving` only. */
  readonly timeLeftSeconds?: number;
  /** Of `archiving` only: when a retention policy archives it, if nobody uses it until then. */
  readonly archivesAt?: string;
}

/**
 * `live`: by stream. `polling`: streams do not come through; it asks every 15 s, and at the
 * instants that matter. `paused`: the page is hidden. `stopped`: there is nothing to hear any more.
 */
export type Connection = "connecting" | "live" | "polling" | "paused" | "stopped";

export interface WatchOptions {
  /** Where ADK's routes are; this page's origin unless given. */
  baseUrl?: string | URL;
  appName: string;
  userId: string;
  sessionId: string;
  /** Headers of every request, such as `Authorization`; a function is asked each time. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  fetch?: typeof fetch;
  /** While polling the server cannot warn: its LAPSE_WARN_MINUTES. 5 unless given. */
  warnMinutes?: number;
  /** The server's LAPSE_HEARTBEAT_SECONDS. 15 unless given. */
  heartbeatSeconds?: number;

  /** The record was learnt: on connecting, and before each notice of a change. */
  onLifecycle?(notice: Notice<"lifecycle">): void;
  /** The deadline is near. Once for each deadline. */
  onExpiring?(notice: Notice<"expiring">): void;
  /** The deadline moved, by whomever. */
  onExtended?(notice: Notice<"extended">): void;
  onExpired?(notice: Notice<"expired">): void;
  onResurrected?(notice: Notice<"resurrected">): void;
  /** It has a message and never expires any more. */
  onUsed?(notice: Notice<"used">): void;
  /** A retention policy archives it soon, if nobody uses it until then. */
  onArchiving?(notice: Notice<"archiving">): void;
  /** A retention policy archived it; a message, a run or `resurrect()` brings it back. */
  onArchived?(notice: Notice<"archived">): void;
  /** It came back from the archive. */
  onRestored?(notice: Notice<"restored">): void;
  /** It does not exist, or not any more; the watch has stopped. */
  onDeleted?(notice: Notice<"deleted">): void;
  onConnection?(connection: Connection): void;
  /** What went wrong on the way; the watch goes on by itself. */
  onError?(error: Error): void;
}

export interface WatchEventMap {
  lifecycle: CustomEvent<Notice<"lifecycle">>;
  expiring: CustomEvent<Notice<"expiring">>;
  extended: CustomEvent<Notice<"extended">>;
  expired: CustomEvent<Notice<"expired">>;
  resurrected: CustomEvent<Notice<"resurrected">>;
  used: CustomEvent<Notice<"used">>;
  archiving: CustomEvent<Notice<"archiving">>;
  archived: CustomEvent<Notice<"archived">>;
  restored: CustomEvent<Notice<"restored">>;
  deleted: CustomEvent<Notice<"deleted">>;
  connection: CustomEvent<Connection>;
  error: CustomEvent<Error>;
}

/** One session, watched until `stop()`. What the callbacks hear, listeners hear too. */
export class SessionWatch extends EventTarget {
  constructor(options: WatchOptions);
  /** The newest record; null before the first and after `deleted`. */
  readonly record: Lifecycle | null;
  /** When a retention policy archives it, if nobody uses it until then; null: not soon. */
  readonly archivesAt: string | null;
  readonly connection: Connection;
  /** Milliseconds until the deadline by the server's clock; null where there is none. */
  readonly timeLeft: number | null;
  /** Whether it waits and its end was announced. */
  readonly isExpiring: boolean;
  /** Whether it expired or was archived, and can still be had back. */
  readonly isRestorable: boolean;
  /** The server's time in milliseconds, as well as it is known here. */
  now(): number;
  /**
   * Somebody is typing: call it with every key. The deadline moves on soon after, then at most
   * once a minute (oftener only where the TTL is under three minutes), up to the horizon.
   */
  draft(): void;
  /** What was typed was sent or thrown away. */
  endDraft(): void;
  /** Give a waiting session a fresh TTL; rejects with status 409 for any other. */
  extend(): Promise<Lifecycle>;
  /** Bring an expired or archived session back; a living one stays as it is. */
  resurrect(): Promise<Lifecycle>;
  /** Ask for the record now. */
  refresh(): Promise<Lifecycle | null>;
  /** Hear no more. */
  stop(): void;

  addEventListener<Kind extends keyof WatchEventMap>(
    kind: Kind,
    listener: (this: SessionWatch, event: WatchEventMap[Kind]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    kind: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/** Watch a session: the same as `new SessionWatch(options)`. */
export function watchSession(options: WatchOptions): SessionWatch;

/** The statuses of sessions, as a record tells them. */
export type SessionStatus = Lifecycle["status"];

export interface ListOptions {
  /** Where ADK's routes are; this page's origin unless given. */
  baseUrl?: string | URL;
  appName: string;
  userId: string;
  /** Which sessions; without it those that ADK lists: all but expired ones. */
  status?: SessionStatus | readonly SessionStatus[];
  /** Whether each session comes with its record; true unless given. */
  lifecycle?: boolean;
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>);
  fetch?: typeof fetch;
  /** Ends the request. */
  signal?: AbortSignal;
}

/** A session as ADK lists it, without its events, and its record. */
export interface ListedSession {
  readonly id: string;
  readonly appName: string;
  readonly userId: string;
  readonly state: Readonly<Record<string, unknown>>;
  readonly events: readonly [];
  /** Seconds since the epoch. */
  readonly lastUpdateTime: number;
  /** Absent with `lifecycle: false`. */
  readonly lifecycle?: Lifecycle;
}

/** Ask for a user's sessions, the most recent one last. Rejects with a LapseError. */
export function listSessions(options: ListOptions): Promise<ListedSession[]>;

export interface OnceOptions {
  /** The Idempotency-Key: 1 to 255 visible ASCII characters; one of its own unless given. */
  key?: string;
  /** How often a request without an answer is repeated; 8 unless given. */
  repeats?: number;
  fetch?: typeof fetch;
}

/**
 * As `fetch`, for a request that must be done once: `/run`, `/run_sse`, `…/run`, or the creation of a
 * session. It is sent with an Idempotency-Key and repeated unchanged, if the connection fails or the
 * answer is 429, 502, 503 or 504: after what `Retry-After` asks for, or else after half a second, one,
 * two, … 30 seconds, each longer by up to half at random. Then the last answer is returned, or
 * the last error thrown. A stream that breaks off is the caller's to repeat, with the same key.
 */
export function fetchOnce(
  url: string | URL, init?: RequestInit, options?: OnceOptions,
): Promise<Response>;

export interface PostOptions extends OnceOptions {
  /** Where ADK's routes are; this page's origin unless given. */
  baseUrl?: string | URL;
  appName: string;
  userId: string;
  headers?: WatchOptions["headers"];
  signal?: AbortSignal;
}

/** A run that goes on: read its `stream` with `EventSource`. */
export interface StartedRun {
  readonly success: true;
  readonly sessionId: string;
  readonly runId: string;
  readonly status: string;
  readonly stream: string;
  readonly invocationId: string | null;
}

/** Post a message once, whatever answers get lost, and start its run. */
export function sendMessage(options: PostOptions & {
  sessionId: string;
  message: string;
  stateDelta?: Record<string, unknown>;
  ifBusy?: "reject" | "queue";
}): Promise<StartedRun>;

/** Create a session once, whatever answers get lost. Resolves to ADK's session. */
export function createSession(options: PostOptions & {
  sessionId?: string;
  state?: Record<string, unknown>;
  /** Lapse's own options, such as `{ ttl_minutes: 5 }`. */
  options?: Record<string, unknown>;
}): Promise<{ readonly id: string } & Readonly<Record<string, unknown>>>;

/** An answer other than 2xx: its status, and the server's sentence as the message. */
export class LapseError extends Error {
  constructor(status: number, detail: string);
  readonly status: number;
}

export interface ServerSentEvent {
  id?: string;
  event?: string;
  data?: string;
  retry?: number;
}

/**
 * Read server-sent events, ADK's `/run_sse` too. It throws when nothing comes for
 * `patience()` milliseconds.
 */
export function serverSentEvents(
  response: Response,
  patience?: () => number,
): AsyncGenerator<ServerSentEvent, void, undefined>;

/**
 * `<lapse-notice>`. Set `watch`, or the attributes `app-name`, `user-id`, `session-id` (and
 * `base-url`). The attributes `closing`, `keep`, `kept`, `limit`, `closed`, `restore`,
 * `restored` and `failed` set its words; `{time}` stands for the time left.
 * Its event `notice` tells what it shows: `"closing"`, `"closed"` or null.
 */
export interface LapseNoticeElement extends HTMLElement {
  watch: SessionWatch | null;
}

declare global {
  interface HTMLElementTagNameMap {
    "lapse-notice": LapseNoticeElement;
  }
}
