// What a Headrace message is made of: two encodings, three subjects, files by hash. No NATS connection in here.

import { decode as unpack, encode as pack } from "@msgpack/msgpack";
import { createHash } from "node:crypto";

export const JSON_TYPE = "application/json";
export const MSGPACK_TYPE = "application/msgpack";

// The bucket that holds input files and artifacts.
export const BLOB_BUCKET = "headrace";

// The default tenant; yours is the second token of every subject.
export const TENANT = process.env.HEADRACE_TENANT || "default";

export function encode(value, contentType) {
  return contentType === MSGPACK_TYPE ? pack(value) : new TextEncoder().encode(JSON.stringify(value));
}

// A result or event says how it is encoded: as its job was.
export function decode(message) {
  return message.headers?.get("Content-Type") === MSGPACK_TYPE ? unpack(message.data) : message.json();
}

export const jobsSubject = (model, lane) => `jobs.${TENANT}.${model}.${lane}`;
export const resultsSubject = (model, id) => `results.${TENANT}.${model}.${id}`;
export const eventsSubject = (model, id) => `events.${TENANT}.${model}.${id}.>`;
export const cancelSubject = (model, id) => `control.cancel.${TENANT}.${model}.${id}`;

// An uploaded input is named by its content, so that the same file is stored once.
export const uploadKey = (sha256) => `${TENANT}/inputs/${sha256}`;

export const sha256Of = (bytes) => createHash("sha256").update(bytes).digest("hex");
