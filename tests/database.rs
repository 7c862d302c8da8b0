//! The schema and the statements, beside those of the npm package.

// Ours and the package's, object by object.
pub mod catalog;
// The same calls to both, answer by answer.
mod functions;
// Who installs, who waits, who is refused.
mod installing;
// The package's workers on our schema, ours on theirs.
mod node_workers;
// Which jobs are claimed, in which order, and by how many at once.
mod claiming;
// What a claim reads, whatever stands before the jobs that it finds.
mod claim_cost;
// Claims that something cuts off.
mod cut_claims;
// Jobs that turn up where claims have passed already.
mod behind;
// What completing, failing and returning change.
mod outcomes;
// The transaction of the express lane.
mod encodings;
mod express;
mod view;
// Jobs that the host adds, and what arrives of them.
mod adding;
// Notifications, and the loss of the connection.
mod listening;
