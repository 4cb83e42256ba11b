//! S19: a secret is in no argument list, environment, log, error text or core dump, and it stays in no memory that is done with it.

use std::time::Duration;

use offshoot_tests::bounded;
use offshoot_tests::process::Signal;
use offshoot_tests::{Fleet, Peer, Tag, Unavailable, host, not_run, or_not_run};

const SOON: Duration = Duration::from_secs(20);
const GONE: Duration = Duration::from_secs(12);

/// Makes whoever crashes in that host leave a core in its working folder.
fn let_cores_be(fleet: &Fleet, host: &str) -> Result<(), Unavailable> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with('|') || pattern.contains('/') {
        return Err(Unavailable::because(format!("cores go to {} here", pattern.trim())));
    }
    let tried = fleet.on(
        host,
        "cd /tmp && ulimit -c unlimited && { SECRET=in-a-core sh -c 'kill -ABRT $$'; grep -l in-a-core core*; rm -f core*; }",
    );
    if tried.code == Some(0) && tried.out().contains("core") {
        Ok(())
    } else {
        Err(Unavailable::because(format!("a process that crashes leaves no core here: {}", tried.err())))
    }
}

/// The cores that lie in a host.
fn cores(fleet: &Fleet, host: &str) -> Vec<String> {
    let found = fleet.on(host, "ls -d /core* /tmp/core* /root/core* /home/*/core* 2>/dev/null");
    found.out().lines().map(str::to_string).collect()
}

#[test]
fn an_agent_that_crashes_leaves_no_core() {
    let name = "an_agent_that_crashes_leaves_no_core";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("core");
    let peer =
        Peer::new("h1").sshd("ForceCommand ulimit -c unlimited; cd /tmp; exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[peer]));
    if let Err(reason) = let_cores_be(&fleet, "h1") {
        tag.assert_nothing_left(GONE);
        not_run!(name, reason);
    }
    for which in ["agent", "supervisor"] {
        let mut running = fleet.offshoot(&tag, &["exec", "h1", "--", "sh", "-c", "echo up; sleep 60"]).start();
        running.await_output("up", SOON);
        let tree = running.await_agents(1, SOON);
        let victim = if which == "agent" { &tree.agents[0] } else { &tree.supervisors[0] };
        assert!(victim.signal(Signal::ABORT), "{tree}");
        let done = running.finish_within(SOON);
        assert!(!done.overdue && done.code != Some(0), "{done}");
        assert!(bounded::eventually(SOON, || tag.processes().is_empty()));
        assert_eq!(cores(&fleet, "h1"), Vec::<String>::new(), "the {which} has left a core");
    }
    tag.assert_nothing_left(GONE);
}
