// One worker of a mixed fleet: works the task `echo` as the plugin of that name does, with a line in the same ledger.
//
//   node fleet.cjs LEDGER [CRONTAB]     prints a line when it is ready, ends when its input ends
const fs = require("fs");
const [ledger, crontab] = process.argv.slice(2);
const release = process.env.GRAPHILE_WORKER_PACKAGE;

const echo = async (payload, { job, getQueueName }) => {
  const queue = (await getQueueName()) ?? null;
  const began_us = Date.now() * 1000;
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
        now_us: Date.now() * 1000,
        payload: JSON.stringify(payload),
      }) + "\n",
    );
  if (payload.announce) trace("began");
  if (payload.sleep_ms) await new Promise((resolve) => setTimeout(resolve, payload.sleep_ms));
  trace("ended");
  if (job.attempts <= (payload.fail_until ?? 0)) throw new Error("failed as asked");
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
    taskList: { echo },
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
