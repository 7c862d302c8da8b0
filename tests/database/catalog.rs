//! Everything that the catalog says of a schema of ours, beside what it says of one that the npm package installed.

use taskbay::{migrate, queue::Database};
use tokio::sync::OnceCell;
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
    compare("Own jobs, \"quoted\" and 'so'").await;
}

async fn compare(schema: &str) {
    let ours = TestDatabase::new().await;
    let prepared = migrate::prepare(&Database::new(ours.settings(schema)).unwrap()).await.unwrap();
    assert_eq!((prepared.number, prepared.installed), (20, true));
    assert_like_the_package(&ours, schema).await;
}

/// Asserts that a database is object by object as one that the package has just installed.
pub(crate) async fn assert_like_the_package(database: &TestDatabase, schema: &str) {
    static USUAL: OnceCell<Vec<Vec<Vec<String>>>> = OnceCell::const_new();
    let own;
    let theirs = if schema == "graphile_worker" {
        USUAL.get_or_init(|| catalog_of_the_package(schema)).await
    } else {
        own = catalog_of_the_package(schema).await;
        &own
    };
    let ours = catalog(database, schema).await;
    for ((what, _), (our_rows, their_rows)) in CATALOG.iter().zip(ours.iter().zip(theirs)) {
        assert_eq!(our_rows, their_rows, "{what} of schema {schema}");
        let may_be_empty = ["policies", "triggers", "privileges of the schema"].contains(what);
        assert!(may_be_empty || !our_rows.is_empty(), "nothing was compared: {what} of schema {schema}");
    }
    assert_eq!(ours.last(), theirs.last(), "revisions of schema {schema}");
    assert_eq!(ours.last().unwrap().len(), 20);
}

async fn catalog_of_the_package(schema: &str) -> Vec<Vec<Vec<String>>> {
    let database = TestDatabase::new().await;
    node::install_schema(&database.url(), schema).await;
    catalog(&database, schema).await
}

/// All of [`CATALOG`], and the rows of the revisions.
async fn catalog(database: &TestDatabase, schema: &str) -> Vec<Vec<Vec<String>>> {
    let client = database.client().await;
    let mut all = Vec::new();
    for (_, sql) in CATALOG {
        all.push(read(&client, schema, sql).await);
    }
    let migrations = format!("select id, breaking from {}.migrations order by id", quoted(schema));
    all.push(read(&client, schema, &migrations).await);
    all
}

fn quoted(schema: &str) -> String {
    format!("\"{}\"", schema.replace('"', "\"\""))
}

async fn read(client: &Client, schema: &str, sql: &str) -> Vec<Vec<String>> {
    let oid = format!("(select oid from pg_namespace where nspname = '{}')", schema.replace('\'', "''"));
    let messages =
        client.simple_query(&sql.replace('$', &oid)).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|column| row.get(column).unwrap_or("null").to_owned()).collect()).collect()
}
