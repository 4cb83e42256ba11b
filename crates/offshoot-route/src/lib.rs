//! The sans-IO core of an offshoot node: links, addresses, authority, grants, requests, streams and the send scheduler.
