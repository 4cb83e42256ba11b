//! The wire protocol of offshoot: addresses, frames, verbs, hello, recipes and their limits.
