// One worker of a mixed fleet: works the task `echo` as the plugin of that name does, with a line in the same ledger. With
// ROW_LEDGER set, it also works `record`, which has rows of a table for its ledger.
//
//   node fleet.cjs LEDGER [CRONTAB]     prints a line when it is ready, ends when its input ends
const fs = require("fs");
const [ledger, crontab] = process.argv.slice(2);
const release = process.env.GRAPHILE_WORKER_PACKAGE;

// By the clock that nobody sets, and that all processes have in common.
const nowUs = () => Number(process.hrtime.bigint() / 1000n);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const echo = async (payload, { job, getQueueName }) => {
  const queue = (await getQueueName()) ?? null;
  const began_us = nowUs();
  // One write of a file opened for appending is not mixed with those of others.
  const trace = (event) =>
    fs.appendFileSync(
      ledger,
      JSON.stringify({
        event,
        job: Number(job.id),
        attempt: job.attempts,
        label: release,
        pid: process.pid,
        queue,
        key: job.key,
        began_us,
        now_us: nowUs(),
        payload: JSON.stringify(payload),
      }) + "\n",
    );
  if (payload.announce) trace("began");
  if (payload.sleep_ms) await sleep(payload.sleep_ms);
  trace("ended");
  if (job.attempts <= (payload.fail_until ?? 0)) throw new Error("failed as asked");
};

// The same statements as in tests/row-ledger, over a pool of its own.
const BEGAN = `
insert into torture_runs (job, n, attempt, queue, pid, began_us, owner, attempts)
select $1::int8, $2::int8, $3::int4, $4::text, $5::int4, $6::int8, stored.locked_by, stored.attempts
from (select) as always
left join graphile_worker._private_jobs as stored on stored.id = $1
returning run`;
const ENDED = "update torture_runs set ended_us = $2, ended_at = clock_timestamp() where run = $1";

const recorder = () => {
  const { Pool } = require("pg");
  const connectionString = process.env.DATABASE_URL;
  const pool = new Pool({ connectionString, max: 8, connectionTimeoutMillis: 1500, query_timeout: 1500 });
  // A connection that is lost while nobody uses it.
  pool.on("error", () => {});
  return async (payload, { job, getQueueName }) => {
    const queue = (await getQueueName()) ?? null;
    const began = [job.id, payload.n, job.attempts, queue, process.pid, nowUs()];
    const run = (await pool.query(BEGAN, began)).rows[0].run;
    await sleep(payload.sleep_ms ?? 0);
    await pool.query(ENDED, [run, nowUs()]);
    if (job.attempts <= (payload.fail_until ?? 0)) throw new Error("failed as asked");
  };
};

async function main() {
  // The package is an ES module, which older versions of Node do not require().
  const { run, Logger } = await import(require.resolve(release));
  const runner = await run({
    connectionString: process.env.DATABASE_URL,
    schema: process.env.GRAPHILE_WORKER_SCHEMA,
    concurrency: 8,
    maxPoolSize: 12,
    pollInterval: 100,
    noHandleSignals: true,
    taskList: process.env.ROW_LEDGER ? { echo, record: recorder() } : { echo },
    crontab: crontab ?? "",
    logger: new Logger(() => (level, message) => level === "error" && process.stderr.write(message + "\n")),
  });
  process.stdout.write("ready\n");
  process.stdin.resume();
  process.stdin.on("end", () => runner.stop());
  await runner.promise;
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
