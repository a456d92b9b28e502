// Cancel a job without the SDK: make `canceled` its result, then tell its worker.
//
//   node cancel.mjs MODEL JOB_ID
//
// Prints `canceled`, or `already <status>` if the job had ended before.

import { jetstream, jetstreamManager, JetStreamApiError } from "@nats-io/jetstream";
import { connect, headers } from "@nats-io/transport-node";
import * as wire from "./wire.mjs";

const WRONG_LAST_SEQUENCE = 10071;
const SUBJECT_FULL = 10077;

const [model, id] = process.argv.slice(2);
const nc = await connect({ servers: process.env.NATS_URL || "nats://127.0.0.1:4222" });
const subject = wire.resultsSubject(model, id);
const now = new Date().toISOString();
const result = {
  id,
  model,
  version: "",
  status: "canceled",
  output: null,
  attempts: 0,
  created_at: now,
  completed_at: now,
  error: { code: "canceled", message: "canceled by its submitter", fault: "input", retryable: false },
};

// Stored only if the job has no result yet: whoever is first decides how it ended.
const h = headers();
h.set("Content-Type", wire.JSON_TYPE);
h.set("Nats-Expected-Last-Subject-Sequence", "0");
try {
  await jetstream(nc).publish(subject, wire.encode(result, wire.JSON_TYPE), { headers: h });
  nc.publish(wire.cancelSubject(model, id));
  await nc.flush();
  console.log("canceled");
} catch (error) {
  if (!(error instanceof JetStreamApiError && [WRONG_LAST_SEQUENCE, SUBJECT_FULL].includes(error.code))) throw error;
  const manager = await jetstreamManager(nc);
  const ended = wire.decode(asMessage(await manager.direct.getMessage("RESULTS", { last_by_subj: subject })));
  console.log(`already ${ended.status}`);
} finally {
  await nc.close();
}

function asMessage(message) {
  return { headers: message.header, data: message.data, json: () => message.json() };
}
