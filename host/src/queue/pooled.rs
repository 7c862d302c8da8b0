//! A connection of the pool.

use std::ops::{Deref, DerefMut};

use deadpool_postgres::ClientWrapper;

/// A connection of the pool.
#[derive(Debug)]
pub(super) struct Pooled {
    client: ClientWrapper,
    /// Whether the limits are lifted for the session.
    pub(super) lifted: bool,
}

impl Pooled {
    pub(super) fn new(client: ClientWrapper) -> Self {
        Self { client, lifted: false }
    }
}

impl Deref for Pooled {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}
