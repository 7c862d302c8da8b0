//! Installs the schema in a fresh database, and refuses those that cannot be worked.
