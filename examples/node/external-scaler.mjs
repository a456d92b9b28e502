// A scaler of your own: start a worker where alerts say that one is missing, and let it end when nothing is left to do.
//
//   node external-scaler.mjs
//
// For each model whose `no_worker` or `backlog` alert fires, it runs `headrace worker --model MODEL` here, one per model.
// A worker ends by SIGTERM, which lets it finish its jobs. So does this program, and its workers with it.

import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { spawn } from "node:child_process";
import { once } from "node:events";

const ASKS_FOR_A_WORKER = ["no_worker", "backlog"];
const LANES = ["high", "normal", "low"];
const LOOK_EVERY_MS = 1000;
// A worker that ended, maybe because it cannot start, is not replaced at once.
const PAUSE_MS = 10_000;

const nc = await connect({ servers: process.env.NATS_URL || "nats://127.0.0.1:4222", maxReconnectAttempts: -1 });
const manager = await jetstreamManager(nc, { checkAPI: false });
const workers = new Map();
const pausedUntil = new Map();
let stopping = false;
let wake = () => {};

// An alert wakes us; what is true is read: the last message of a model has all that fires in `firing`.
nc.subscribe("alerts.backlog.*", { callback: () => wake() });
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => { stopping = true; wake(); });

async function modelsThatAsk() {
  const asking = new Set();
  for await (const message of await manager.direct.getLastMessagesFor("ALERTS", { multi_last: ["alerts.backlog.*"] })) {
    const alert = message.json();
    if (ASKS_FOR_A_WORKER.some((name) => name in alert.firing)) asking.add(alert.model);
  }
  return asking;
}

// `no_worker` is resolved as soon as our worker is ready. What is left for it to do, only the queue knows.
async function jobsLeft(model) {
  const lanes = await Promise.all(LANES.map((lane) => manager.consumers.info("JOBS", `${model}-${lane}`)));
  return lanes.reduce((sum, lane) => sum + lane.num_pending + lane.num_ack_pending, 0);
}

function start(model) {
  const worker = spawn("headrace", ["worker", "--model", model], { stdio: ["ignore", "inherit", "inherit"] });
  const ended = (how) => { workers.delete(model); console.log(`${model}: worker ended (${how})`); };
  workers.set(model, worker);
  pausedUntil.set(model, Date.now() + PAUSE_MS);
  console.log(`${model}: worker started`);
  worker.on("exit", (status, signal) => ended(signal ?? `exit status ${status}`));
  worker.on("error", (error) => ended(error.message));
}

async function look() {
  const asking = await modelsThatAsk();
  for (const model of asking) {
    if (!workers.has(model) && Date.now() >= (pausedUntil.get(model) ?? 0)) start(model);
  }
  for (const [model, worker] of workers) {
    if (!asking.has(model) && !worker.killed && await jobsLeft(model) === 0) worker.kill("SIGTERM");
  }
}

while (!stopping) {
  await look().catch((error) => console.error(`cannot look now: ${error.message}`));
  await new Promise((resolve) => { wake = resolve; setTimeout(resolve, LOOK_EVERY_MS); });
}
const ends = [...workers.values()].map((worker) => once(worker, "exit"));
for (const worker of workers.values()) worker.kill("SIGTERM");
await Promise.all(ends);
await nc.close();
