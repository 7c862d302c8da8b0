// Installs the schema of the release that the first argument names, by that release's own code.
const { Client } = require("pg");

const release = `graphile-worker-${process.argv[2]}`;
const connectionString = process.env.DATABASE_URL;

async function main() {
  const { runMigrations } = require(release);
  if (runMigrations) return runMigrations({ connectionString, schema: process.env.GRAPHILE_WORKER_SCHEMA });
  // 0.1.0 did it at the start of a worker only.
  const client = new Client({ connectionString });
  await client.connect();
  await require(`${release}/dist/migrate`).migrate(client);
  await client.end();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
