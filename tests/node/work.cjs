// A graphile-worker that works the tasks named by its arguments and prints one line of JSON per job. With `--once` it ends
// when there is nothing left to do, otherwise when its input ends.
const once = process.argv[2] === "--once";
const names = process.argv.slice(once ? 3 : 2);
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const taskList = {};
for (const name of names) {
  taskList[name] = async (payload, { job, getQueueName }) => {
    const queue = await getQueueName();
    say({ id: job.id, task: name, payload, queue, attempts: job.attempts, key: job.key, flags: job.flags });
    if (payload && payload.fail) throw new Error(payload.fail);
  };
}

const options = {
  connectionString: process.env.DATABASE_URL,
  schema: process.env.GRAPHILE_WORKER_SCHEMA,
  concurrency: 2,
  pollInterval: 100,
  noHandleSignals: true,
  taskList,
};

async function main() {
  // The package is an ES module, which older versions of Node do not require().
  const { run, runOnce, Logger } = await import(require.resolve(process.env.GRAPHILE_WORKER_PACKAGE));
  options.logger = new Logger(() => (level, message) => level === "error" && process.stderr.write(message + "\n"));
  if (once) return runOnce(options);
  const runner = await run(options);
  say({ ready: true });
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
