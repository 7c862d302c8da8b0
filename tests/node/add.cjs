// Adds two jobs of the task `theirs` as an application does, one of them in a queue.
const { makeWorkerUtils } = require("graphile-worker");

async function main() {
  const utils = await makeWorkerUtils({
    connectionString: process.env.DATABASE_URL,
    schema: process.env.GRAPHILE_WORKER_SCHEMA,
  });
  await utils.addJob("theirs", { n: 1 });
  await utils.addJob("theirs", { n: 2 }, { queueName: "q" });
  await utils.release();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
