//! `offshoot agents`: which agents are at hand.

use offshoot::escape::escaped;
use serde::Serialize;

use crate::args::{AgentsArgs, GlobalArgs};
use crate::exit;
use crate::options::{self, Look};
use crate::output::{Console, Stream, append_record, fault_block};
use crate::tree::AgentFound;

#[derive(Serialize)]
struct Record<'a> {
    r#type: &'static str,
    triple: &'a str,
    sha256: &'a str,
    size: u64,
    sent: u64,
    from: &'a str,
}

/// Lists the agents and returns what to exit with.
///
/// # Errors
/// What breaks our own output.
pub(crate) fn agents(args: &AgentsArgs, global: &GlobalArgs) -> anyhow::Result<u8> {
    let (found, broken) = crate::tree::agents(options::agents(global)?.as_deref());
    let console = Console::of_process();
    if found.is_empty() && broken.is_empty() && !global.quiet {
        let hint = "no agents at hand: local hops need none; for others build them with: cargo xtask agents\n";
        console.write(Stream::Stderr, hint.as_bytes())?;
    }
    let text = if args.json { records(&found)? } else { table(&found).into_bytes() };
    match console.write(Stream::Stdout, &text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::BROKEN_PIPE),
        Err(error) => Err(error.into()),
        Ok(()) => {
            let palette = Look::new(global).palettes[1];
            for fault in &broken {
                console.write(Stream::Stderr, fault_block(fault, &[], &[], &palette).as_bytes())?;
            }
            Ok(broken.iter().map(|fault| fault.code).max().unwrap_or(0))
        }
    }
}

fn records(found: &[AgentFound]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for AgentFound { triple, sha256, size, sent, from } in found {
        append_record(&Record { r#type: "agent", triple, sha256, size: *size, sent: *sent, from }, &mut text)?;
    }
    Ok(text)
}

fn table(found: &[AgentFound]) -> String {
    let width = found.iter().map(|agent| agent.triple.chars().count()).max().unwrap_or(0);
    found
        .iter()
        .map(|AgentFound { triple, sha256, size, sent, from }| {
            let kib = |bytes: u64| bytes.div_ceil(1024);
            format!(
                "{triple:width$}  {:12}  {:>5} KiB  {:>4} KiB as sent  {}\n",
                sha256.get(..12).unwrap_or(sha256),
                kib(*size),
                kib(*sent),
                escaped(from.as_bytes())
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_listed_in_columns() {
        let found = ["x86_64-unknown-linux-musl", "armv7-unknown-linux-musleabihf"].map(|triple| AgentFound {
            triple: triple.into(),
            sha256: "0123456789abcdef".repeat(4),
            size: 200_000,
            sent: 98_304,
            from: "/opt/agents".into(),
        });
        assert_eq!(
            table(&found),
            concat!(
                "x86_64-unknown-linux-musl       0123456789ab    196 KiB    96 KiB as sent  /opt/agents\n",
                "armv7-unknown-linux-musleabihf  0123456789ab    196 KiB    96 KiB as sent  /opt/agents\n",
            )
        );
    }
}
