//! The few KiB that put an offshoot agent into RAM on a target.
