//! Master, contexts and image search for programs built on offshoot.
