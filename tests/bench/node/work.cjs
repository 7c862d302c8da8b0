// A graphile-worker with its defaults, or with the tuning that its authors publish (BENCH_TUNED=1).
const fs = require("fs");

let stamps;
const taskList = {
  noop() {},
  sleep: () => new Promise((resolve) => setTimeout(resolve, 1)),
  fail({ n }) {
    if (n % 10 === 0) throw new Error("one in ten");
  },
  stamp({ n }) {
    const now = process.hrtime.bigint();
    stamps ??= fs.openSync(process.env.BENCH_STAMPS, "a");
    fs.writeSync(stamps, `${n} ${now}\n`);
  },
};

async function main() {
  const { run, Logger } = await import(require.resolve("graphile-worker"));
  const worker = { connectionString: process.env.DATABASE_URL };
  if (process.env.BENCH_TUNED) {
    Object.assign(worker, {
      concurrentJobs: 24,
      maxPoolSize: 25,
      localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    });
  }
  if (process.env.BENCH_CONCURRENCY) worker.concurrentJobs = Number(process.env.BENCH_CONCURRENCY);
  // It would write a line for each job.
  const logger = new Logger(() => () => {});
  const runner = await run({ preset: { worker }, taskList, logger });
  await runner.promise;
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
