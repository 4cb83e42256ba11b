//! The targets, by the crate they aim at.

pub(crate) mod connect;
pub(crate) mod core;
pub(crate) mod grants;
pub(crate) mod pair;
pub(crate) mod prompt;
pub(crate) mod wire;
