// A Headrace client that knows nothing but NATS: publish a job, follow it, read its result, fetch its files.
//
//   node client.mjs tiny-shapes '{"prompt": "a red star on a blue background"}' --out pictures
//   node client.mjs whisper-tiny-en '{}' --file audio=speech.wav --msgpack
//
// Events go to standard error, the result (as JSON) to standard output. Exit status: 0 if the job succeeded, else 1.

import { jetstream, JetStreamApiError } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { connect, headers, nkeyAuthenticator } from "@nats-io/transport-node";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import * as wire from "./wire.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    id: { type: "string" },
    lane: { type: "string", default: "normal" },
    msgpack: { type: "boolean", default: false },
    file: { type: "string", multiple: true, default: [] },
    out: { type: "string", default: "." },
    "wait-s": { type: "string", default: "300" },
  },
});
const [model, inputText] = positionals;
if (inputText === undefined) {
  console.error("usage: node client.mjs MODEL INPUT_JSON [--id ID] [--lane LANE] [--msgpack] [--file FIELD=PATH]"
    + " [--out FOLDER] [--wait-s SECONDS]");
  process.exit(2);
}

// With keys, as `headrace auth` makes them, these are in the role's headrace.toml; without, NATS_URL is enough.
const { NATS_URL, NATS_NKEY, NATS_INBOX_PREFIX, NATS_JS_API_PREFIX } = process.env;
const nc = await connect({
  servers: NATS_URL || "nats://127.0.0.1:4222",
  authenticator: NATS_NKEY && nkeyAuthenticator(new TextEncoder().encode((await readFile(NATS_NKEY, "utf8")).trim())),
  inboxPrefix: NATS_INBOX_PREFIX || "_INBOX",
});
const js = jetstream(nc, { apiPrefix: NATS_JS_API_PREFIX || "$JS.API" });

async function main() {
  const input = JSON.parse(inputText);
  for (const file of options.file) {
    const [field, path] = file.split(/=(.*)/s);
    input[field] = await upload(path);
  }
  const id = await submit({ input });
  const events = await stored("EVENTS", wire.eventsSubject(model, id));
  const following = follow(events);
  const result = await resultOf(id);
  events.stop();
  await following;
  console.log(JSON.stringify(result, null, 2));
  for (const artifact of result.artifacts) await download(artifact);
  return result.status === "succeeded" ? 0 : 1;
}

// The receipt (PubAck) means that the job is on disk and will have exactly one result.
async function submit(job) {
  const contentType = options.msgpack ? wire.MSGPACK_TYPE : wire.JSON_TYPE;
  const h = headers();
  h.set("Content-Type", contentType);
  if (options.id) h.set("Nats-Msg-Id", options.id);
  const receipt = await js.publish(wire.jobsSubject(model, options.lane), wire.encode(job, contentType), { headers: h });
  const id = options.id ?? `seq-${receipt.seq}`;
  console.error(`${receipt.duplicate ? "already submitted" : "submitted"}: job ${id}`);
  return id;
}

// Messages of a stream from their beginning, so nothing is missed that happened before we asked.
async function stored(stream, subject) {
  const consumer = await js.consumers.get(stream, { filter_subjects: [subject] });
  return await consumer.consume();
}

async function follow(messages) {
  for await (const message of messages) {
    const { event, job_id, at, ...rest } = wire.decode(message);
    console.error(`${event} ${JSON.stringify(rest)}`);
  }
}

// Read from the stream, not from a plain subscription: a subscriber also hears results that the stream then refuses.
async function resultOf(id) {
  const messages = await stored("RESULTS", wire.resultsSubject(model, id));
  const giveUp = setTimeout(() => messages.stop(), Number(options["wait-s"]) * 1000);
  try {
    for await (const message of messages) return wire.decode(message);
  } finally {
    clearTimeout(giveUp);
  }
  throw new Error(`no result of job ${id} after ${options["wait-s"]} s; the job goes on`);
}

// A small file could travel inside the job, as {"$inline": <base64, or bytes in MessagePack>}.
async function upload(path) {
  const bytes = await readFile(path);
  const sha256 = wire.sha256Of(bytes);
  const bucket = await new Objm(nc).create(wire.BLOB_BUCKET);
  await bucket.putBlob({ name: wire.uploadKey(sha256) }, bytes);
  return { $blob: wire.uploadKey(sha256), sha256, size_bytes: bytes.length };
}

async function download(artifact) {
  const bucket = await new Objm(nc).open(wire.BLOB_BUCKET);
  const bytes = await bucket.getBlob(artifact.$blob);
  if (bytes === null) throw new Error(`artifact ${artifact.name} is gone`);
  if (wire.sha256Of(bytes) !== artifact.sha256) throw new Error(`artifact ${artifact.name} has other bytes than promised`);
  await mkdir(options.out, { recursive: true });
  const target = join(options.out, basename(artifact.name));
  await writeFile(target, bytes);
  console.error(`saved ${target} (${bytes.length} bytes, sha256 checked)`);
}

try {
  process.exitCode = await main();
} catch (error) {
  // 10077: a limit of the queue is reached. Nothing was stored; try again later.
  const full = error instanceof JetStreamApiError && error.code === 10077;
  console.error(full ? "the queue is full: try again later" : `error: ${error.message}`);
  process.exitCode = 1;
} finally {
  await nc.close();
}
