// Adds the jobs that its input lists, a JSON array of what `addJobs` takes, in some calls.
const fs = require("fs");

async function main() {
  // The package is an ES module, which older versions of Node do not require().
  const { makeWorkerUtils } = await import(require.resolve(process.env.GRAPHILE_WORKER_PACKAGE));
  const utils = await makeWorkerUtils({
    connectionString: process.env.DATABASE_URL,
    schema: process.env.GRAPHILE_WORKER_SCHEMA,
  });
  const jobs = JSON.parse(fs.readFileSync(0, "utf8"));
  // 0.16 has no addJobs; its addJob is what every application of its time calls.
  if (utils.addJobs) {
    for (let at = 0; at < jobs.length; at += 500) await utils.addJobs(jobs.slice(at, at + 500));
  } else {
    for (const { identifier, payload, ...spec } of jobs) await utils.addJob(identifier, payload, spec);
  }
  await utils.release();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
