// Adds two jobs of the task `theirs` as an application does, one of them in a queue.

async function main() {
  // The package is an ES module, which older versions of Node do not require().
  const { makeWorkerUtils } = await import(require.resolve(process.env.GRAPHILE_WORKER_PACKAGE));
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
