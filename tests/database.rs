//! The schema and the statements, beside those of the npm package.
