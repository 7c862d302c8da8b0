// A graphile-worker with the crontab that is its argument. It works none of the jobs that the crontab adds, prints a line of
// JSON for each event of its schedules, and ends when its input does.
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

async function main() {
  // The package is an ES module, which older versions of Node do not require().
  const { run, Logger } = await import(require.resolve("graphile-worker"));
  const { EventEmitter } = require("node:events");
  const events = new EventEmitter();
  events.on("cron:started", () => say({ event: "started" }));
  events.on("cron:scheduled", ({ timestamp }) => say({ event: "scheduled", timestamp: new Date(timestamp).toISOString() }));
  const runner = await run({
    connectionString: process.env.DATABASE_URL,
    schema: process.env.GRAPHILE_WORKER_SCHEMA,
    concurrency: 1,
    pollInterval: 100000,
    noHandleSignals: true,
    taskList: { unused: () => {} },
    crontab: process.argv[2],
    events,
    logger: new Logger(() => (level, message) => level === "error" && process.stderr.write(message + "\n")),
  });
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
