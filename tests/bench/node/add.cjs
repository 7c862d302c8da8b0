// Adds TASK COUNT times by graphile-worker's `addJobs`, and says how many nanoseconds that took, without starting and connecting.
const BATCH = 10_000;

async function main() {
  const { makeWorkerUtils, Logger } = await import(require.resolve("graphile-worker"));
  const [identifier, count] = [process.argv[2], Number(process.argv[3])];
  const utils = await makeWorkerUtils({
    connectionString: process.env.DATABASE_URL,
    logger: new Logger(() => () => {}),
  });
  await utils.withPgClient((client) => client.query("select 1"));
  const began = process.hrtime.bigint();
  for (let first = 0; first < count; first += BATCH) {
    const jobs = [];
    for (let n = first; n < Math.min(count, first + BATCH); n++) jobs.push({ identifier, payload: { n } });
    await utils.addJobs(jobs);
  }
  console.log(String(process.hrtime.bigint() - began));
  await utils.release();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
