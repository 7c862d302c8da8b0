//! Everything that the catalog says of a schema of ours, beside what it says of one that the npm package installed.

use taskbay::{migrate, queue::Database};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::harness::{node, postgres::TestDatabase};

/// What is compared, and how it is read. `$` stands for the oid of the schema.
const CATALOG: &[(&str, &str)] = &[
    (
        "relations",
        "select relname, relkind, relpersistence, relrowsecurity, relforcerowsecurity, reloptions, relacl
         from pg_class where relnamespace = $ order by 1",
    ),
    (
        "columns",
        "select relname, row_number() over (partition by relname order by attnum), attname,
                format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attcollation, attstorage,
                pg_get_expr(adbin, adrelid)
         from pg_class join pg_attribute on attrelid = pg_class.oid left join pg_attrdef on adrelid = attrelid and adnum = attnum
         where relnamespace = $ and attnum > 0 and not attisdropped order by 1, 2",
    ),
    (
        "constraints",
        "select conrelid::regclass::text, conname, contype, condeferrable, convalidated, pg_get_constraintdef(oid)
         from pg_constraint where connamespace = $ order by 1, 2",
    ),
    (
        "indexes",
        "select relname, pg_get_indexdef(indexrelid), indisunique, indisprimary, indisvalid
         from pg_index join pg_class on pg_class.oid = indexrelid where relnamespace = $ order by 1",
    ),
    (
        "sequences",
        "select relname, format_type(seqtypid, null), seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle,
                (select refobjid::regclass::text || refobjsubid from pg_depend
                 where objid = seqrelid and deptype = 'i' and refclassid = 'pg_class'::regclass)
         from pg_sequence join pg_class on pg_class.oid = seqrelid where relnamespace = $ order by 1",
    ),
    (
        "functions",
        "select proname, pg_get_function_arguments(pg_proc.oid), pg_get_function_result(pg_proc.oid), lanname, prokind,
                provolatile, proisstrict, prosecdef, proleakproof, proparallel, proretset, procost, prorows, proconfig, proacl
         from pg_proc join pg_language on pg_language.oid = prolang where pronamespace = $ order by 1, 2",
    ),
    ("views", "select relname, pg_get_viewdef(oid) from pg_class where relnamespace = $ and relkind = 'v' order by 1"),
    (
        "types",
        "select typname, typtype, typcategory, typnotnull, typdefault from pg_type where typnamespace = $ order by 1",
    ),
    ("policies", "select polname from pg_policy join pg_class on pg_class.oid = polrelid where relnamespace = $"),
    ("triggers", "select tgname from pg_trigger join pg_class on pg_class.oid = tgrelid where relnamespace = $"),
    ("privileges of the schema", "select nspacl from pg_namespace where oid = $"),
];

#[tokio::test]
async fn our_schema_is_the_packages_object_by_object() {
    compare("graphile_worker").await;
}

#[tokio::test]
async fn a_schema_whose_name_needs_quotes_is_the_packages_too() {
    compare("Own jobs, \"quoted\"").await;
}

async fn compare(schema: &str) {
    let (ours, theirs) = (TestDatabase::new().await, TestDatabase::new().await);
    let prepared = migrate::prepare(&Database::new(ours.settings(schema)).unwrap()).await.unwrap();
    assert_eq!((prepared.number, prepared.installed), (20, true));
    node::install_schema(&theirs.url(), schema).await;
    let (our_client, their_client) = (ours.client().await, theirs.client().await);
    for (what, sql) in CATALOG {
        let (our_rows, their_rows) = (read(&our_client, schema, sql).await, read(&their_client, schema, sql).await);
        assert_eq!(our_rows, their_rows, "{what} of schema {schema}");
        let may_be_empty = ["policies", "triggers", "privileges of the schema"].contains(what);
        assert!(may_be_empty || !our_rows.is_empty(), "nothing was compared: {what} of schema {schema}");
    }
    let migrations = format!("select id, breaking from {}.migrations order by id", quoted(schema));
    let (our_rows, their_rows) =
        (read(&our_client, schema, &migrations).await, read(&their_client, schema, &migrations).await);
    assert_eq!(our_rows, their_rows, "revisions of schema {schema}");
    assert_eq!(our_rows.len(), 20);
}

fn quoted(schema: &str) -> String {
    format!("\"{}\"", schema.replace('"', "\"\""))
}

async fn read(client: &Client, schema: &str, sql: &str) -> Vec<Vec<String>> {
    let oid = format!("(select oid from pg_namespace where nspname = '{schema}')");
    let messages =
        client.simple_query(&sql.replace('$', &oid)).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|column| row.get(column).unwrap_or("null").to_owned()).collect()).collect()
}
