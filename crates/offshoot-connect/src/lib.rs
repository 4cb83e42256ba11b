//! Connection methods and the bootstrap engine that turns a login into a running offshoot agent.

pub mod bootstrap;
pub mod bundle;
