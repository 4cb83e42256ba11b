//! How the contexts of a measurement are had, through the public interface alone.
//!
//! Shared by the two programs that measure offshoot. Must not know what is measured.

use crate::contract::{self, Variant, skip};
use crate::proc;
use anyhow::{Context as _, Result, anyhow};
use offshoot::methods::{Local, Ssh, Sudo};
use offshoot::{Context, Master};
use serde_json::Value;
use std::time::Duration;

/// A login on a loaded machine may take long; the runner has its own deadline.
const PATIENCE: Duration = Duration::from_secs(120);

/// A login to the host of a hop, as the runner's environment says.
pub(crate) fn ssh(hop: usize) -> Ssh {
    let mut method = Ssh::to(contract::host(hop)).connect_timeout(PATIENCE).stage_timeout(PATIENCE);
    if let Ok(config) = std::env::var("BENCH_SSH_CONFIG") {
        method = method.config(config);
    }
    if let Ok(program) = std::env::var("BENCH_SSH_PATH") {
        method = method.program(program);
    }
    method
}

/// One more context below `parent`.
pub(crate) fn add(parent: &Context, kind: &str, hop: usize) -> Result<Context> {
    let below = match kind {
        "local" => parent.connect(Local::new()),
        "ssh" => parent.connect(ssh(hop)),
        "sudo" => parent.connect(Sudo::to("root")),
        _ => return Err(anyhow!("no method {kind:?}")),
    };
    below.with_context(|| format!("{kind}, hop {hop}"))
}

/// Whether the kind is one that `add` has; says so when not.
pub(crate) fn known(variant: Variant<'_>) -> bool {
    let known = matches!(variant.kind, "local" | "ssh" | "sudo");
    if !known {
        skip("no such method yet");
    }
    known
}

/// The context at the end of so many hops of a kind.
pub(crate) fn chain(master: &Master, variant: Variant<'_>) -> Result<Context> {
    let mut context = master.context().clone();
    for hop in 1..=variant.hops {
        context = add(&context, variant.kind, hop)?;
    }
    Ok(context)
}

/// This process and all below it.
pub(crate) fn family() -> Vec<u32> {
    let own = std::process::id();
    [proc::descendants(&[own]), vec![own]].concat()
}

/// Adds the fields of one object to another.
pub(crate) fn add_fields(line: &mut Value, fields: Value) {
    if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
        line.extend(fields);
    }
}
