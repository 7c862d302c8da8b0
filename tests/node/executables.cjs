// A graphile-worker that works all jobs of the tasks in the folder that is its argument, and ends.

async function main() {
  // The package is an ES module, which older versions of Node do not require().
  const { runOnce, Logger } = await import(require.resolve("graphile-worker"));
  await runOnce({
    connectionString: process.env.DATABASE_URL,
    schema: process.env.GRAPHILE_WORKER_SCHEMA,
    noHandleSignals: true,
    taskDirectory: process.argv[2],
    logger: new Logger(() => (level, message) => level === "error" && process.stderr.write(message + "\n")),
  });
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
