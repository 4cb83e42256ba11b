//! Rules of the whole product that no part shows alone: nothing listens (S21), nobody below has the user's terminal (S16),
//! and nobody can change what an agent runs (S15).

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use offshoot_tests::bounded::{self, find_program};
use offshoot_tests::process::{Process, Signal};
use offshoot_tests::{Fleet, Peer, Tag, Tree, bed, not_run, or_not_run};
use rustix::fs::SealFlags;

const UP: Duration = Duration::from_secs(40);
const GONE: Duration = Duration::from_secs(18);

/// The sockets of a process by which somebody could reach it: TCP in the state of listening, any of UDP or raw, and unix
/// sockets that listen or have a name.
fn reachable(process: &Process) -> Vec<String> {
    let open = process.descriptors();
    let sockets = open.iter().filter_map(|(_, what)| what.strip_prefix("socket:[")?.strip_suffix(']'));
    let own: BTreeSet<&str> = sockets.collect();
    let mut found = Vec::new();
    for kind in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix"] {
        // The tables are those of the process' own network.
        let table = fs::read_to_string(format!("/proc/{}/net/{kind}", process.pid)).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (inode, open) = match kind {
                "unix" => (fields.get(6), fields.get(3) == Some(&"00010000") || fields.len() > 7),
                "tcp" | "tcp6" => (fields.get(9), fields.get(3) == Some(&"0A")),
                _ => (fields.get(9), true),
            };
            if open && inode.is_some_and(|inode| own.contains(inode)) {
                found.push(format!("{kind}: {line}"));
            }
        }
    }
    found
}

/// By what each process of a tree could be reached: how many could be looked at, and what was found.
fn all_reachable(tree: &Tree, master: &Process) -> (usize, Vec<String>) {
    let all = || tree.guards().chain([master]);
    (all().filter(|process| !process.descriptors().is_empty()).count(), all().flat_map(found_at).collect())
}

fn found_at(process: &Process) -> Vec<String> {
    reachable(process).into_iter().map(|line| format!("{process}: {line}")).collect()
}

#[test]
fn s21_nothing_of_a_tree_listens_on_any_socket() {
    let name = "s21_nothing_of_a_tree_listens_on_any_socket";
    // The looking finds what there is to be found.
    let own = Process::read(std::process::id() as i32).expect("this process");
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(reachable(&own), Vec::<String>::new());
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let unix = UnixListener::bind(folder.path().join("listens")).expect("a name");
    let named = UnixDatagram::bind(folder.path().join("named")).expect("a name");
    assert_eq!(reachable(&own).len(), 4, "{:?}", reachable(&own));
    drop((tcp, udp, unix, named));

    let tag = Tag::new("listens");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[bed::peer("h1"), Peer::new("h2")]));
    // One login takes two seconds longer than the others.
    let targets = [
        "h1",
        "h1/h2",
        "h1/h2/local",
        "local",
        "local/local",
        "sudo-nopass@h1",
        "sudo-nopass@h1/sudo:root",
        "u-slow@h2",
    ];
    let script = "echo up; exec sleep 600";
    let running = fleet.offshoot(&tag, &["exec", &targets.join(","), "--", "sh", "-c", script]).start();
    let master = running.master();
    let (mut found, mut rounds) = (BTreeSet::new(), 0);
    let up = bounded::eventually(UP, || {
        let tree = running.tree();
        rounds += usize::from(!tree.ssh.is_empty() && tree.agents.len() < targets.len());
        found.extend(all_reachable(&tree, &master).1);
        let said = running.output_so_far();
        targets.iter().all(|target| said.lines().any(|line| line.trim_end() == format!("{target}: up")))
    });
    assert!(up, "{}", running.report());
    assert!(rounds > 2, "a connect was looked at {rounds} times");
    let tree = running.await_agents(targets.len(), UP);
    let (looked, more) = all_reachable(&tree, &master);
    assert_eq!(looked, 2 * targets.len() + 1 + tree.ssh.len(), "not all could be looked at: {tree}");
    found.extend(more);
    assert!(found.is_empty(), "{found:#?}");
    master.signal(Signal::INT);
    assert!(!running.finish_within(Duration::from_secs(21)).overdue);

    // A program whose functions run far away, with a channel open to one of them.
    let running = or_not_run!(name, fleet.calls(&tag, &["hold", "h1", "h2"]));
    let mut running = running.start();
    running.await_output("held", UP);
    let tree = running.await_agents(3, UP);
    let worker = |guard: &&Process| guard.cmdline.iter().any(|word| word == "offshoot-worker");
    let program = tree.named("offshoot-calls");
    assert_eq!((tree.supervisors.iter().filter(worker).count(), program.len()), (1, 1), "{tree}");
    let (looked, found) = all_reachable(&tree, program[0]);
    assert_eq!(looked, 2 * 3 + 1 + tree.ssh.len(), "not all could be looked at: {tree}");
    assert!(found.is_empty(), "{found:#?}");
    program[0].signal(Signal::INT);
    assert!(!running.finish_within(Duration::from_secs(21)).overdue);
    drop(fleet);
    tag.assert_nothing_left(GONE);
}

/// The file that a process runs.
enum Runs {
    /// One in memory that nobody can change any more, or one without a name.
    Sealed,
    /// One of this installation, which nobody but its owner, root or us, may write.
    Ours,
    /// Anything else.
    Other(String),
}

fn runs(process: &Process) -> std::io::Result<Runs> {
    let path = format!("/proc/{}/exe", process.pid);
    let name = fs::read_link(&path)?.to_string_lossy().into_owned();
    let file = fs::File::open(&path)?;
    if name.starts_with("/memfd:") {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        let wanted = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        let other = || Runs::Other(format!("{name} has the seals {seals:?}"));
        return Ok(if seals.contains(wanted) { Runs::Sealed } else { other() });
    }
    let about = file.metadata()?;
    let owned = [0, rustix::process::getuid().as_raw()].contains(&about.uid()) && about.mode() & 0o022 == 0;
    Ok(match about.nlink() {
        0 => Runs::Sealed,
        _ if owned => Runs::Ours,
        names => Runs::Other(format!("{name} has {names} names and mode {:o}", about.mode())),
    })
}

#[test]
fn s15_nobody_can_change_what_an_agent_runs_and_what_it_starts_starts_clean() {
    let name = "s15_nobody_can_change_what_an_agent_runs_and_what_it_starts_starts_clean";
    // The looking finds what can be changed.
    let own = Process::read(std::process::id() as i32).expect("this process");
    assert!(matches!(runs(&own).expect("it is ours"), Runs::Ours | Runs::Other(_)));
    let tag = Tag::new("sealed");
    let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2"].map(Peer::new)));
    let targets = ["h1", "h1/h2", "h1/h2/local", "local", "local/local"];
    // A shell has all signals blocked for a moment while it starts something, so grep looks at itself.
    let script = "ls /proc/$$/fd; grep -E 'Sig(Ign|Blk)' /proc/self/status; echo up; exec sleep 600";
    let mut running = fleet.offshoot(&tag, &["exec", &targets.join(","), "--", "sh", "-c", script]).start();
    for target in targets {
        running.await_output(&format!("{target}: up"), UP);
    }
    let tree = running.await_agents(5, UP);
    let (mut ours, mut found) = (0, Vec::new());
    for process in tree.supervisors.iter().chain(&tree.agents) {
        match runs(process).expect("they are ours") {
            Runs::Sealed => {}
            Runs::Ours => ours += 1,
            Runs::Other(what) => found.push(format!("{process}: {what}")),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    // The two of this machine, and their guards, may run an installed file; nothing that came there by a link does.
    assert!(ours <= 4, "{ours} run a file with a name: {tree}");
    running.master().signal(Signal::INT);
    let done = running.finish_within(Duration::from_secs(21));
    assert!(!done.overdue);
    for target in targets {
        done.expect_lines(target, &["0", "1", "2", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "up"]);
    }
    drop(fleet);
    tag.assert_nothing_left(GONE);
}

#[test]
fn s16_nothing_below_the_command_has_its_terminal() {
    let name = "s16_nothing_below_the_command_has_its_terminal";
    let tag = Tag::new("noterminal");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[bed::peer("h1"), Peer::new("h2")]));
    let word = |account: &str| fleet.accounts().password("h1", account);
    let with_passwords = ["sudo-pw", "sudo-ttypw", "sudo-nopty", "sudo-log"].map(|account| (account, word(account)));
    let others = [("*sudo-none@h1 -> su:goal", word("goal")), ("doas-pw@h1", word("doas-pw"))];
    bed::answer(&fleet, &[&with_passwords[..], &others].concat()).unwrap();
    // Hops, and the tool that has a terminal of its own there, which it passes on to what it starts: su gets none.
    let mut targets = vec![("local", ""), ("local/local", ""), ("h1", ""), ("h1/h2", ""), ("sudo-none@h1/su:goal", "")];
    let behind_sudo = with_passwords.each_ref().map(|(account, _)| format!("{account}@h1/sudo:goal"));
    targets.extend(behind_sudo.iter().map(|target| (target.as_str(), "(sudo)")));
    if find_program("doas").is_some() {
        targets.push(("doas-pw@h1/doas:root", "(doas)"));
    } else {
        not_run::report(&format!("{name}::doas"), "doas is not installed");
    }
    // The number of the controlling terminal is the seventh field: what TIOCSTI and a read of /dev/tty would reach.
    let look = "read -r a b c d e f tty rest </proc/self/stat; (: </dev/tty) 2>/dev/null && tty=open; echo terminal=$tty; \
                up=$PPID; while [ \"$up\" -gt 1 ] && read -r a who c up e f tty rest </proc/$up/stat; do echo \"$who $tty\"; done";
    let list = targets.iter().map(|(target, _)| *target).collect::<Vec<_>>().join(",");
    let words = ["exec", "--color", "never", "--password-command", bed::ANSWER, &list, "--", "sh", "-c", look];
    let done = fleet.offshoot_on_terminal(&tag, &words).finish(UP);
    done.expect_code(0);
    for (target, tool) in targets {
        let lines: Vec<String> = done.lines_from(target).iter().map(|line| line.trim_start().to_owned()).collect();
        assert_eq!(lines.first().map(String::as_str), Some("terminal=0"), "{target}\n{done}");
        let named = |names: &[&str]| -> Vec<&String> {
            lines.iter().filter(|line| names.iter().any(|name| line.starts_with(name))).collect()
        };
        // Behind each comes its guard, which stays in the session of the tool that started it; where root runs the image that is
        // there, it is called as its agent is.
        let is_agent = |line: &str| line.starts_with("(offshoot:");
        let is_first = |at: usize| at == 0 || !is_agent(&lines[at - 1]);
        let agents: Vec<&String> =
            (0..lines.len()).filter(|at| is_agent(&lines[*at]) && is_first(*at)).map(|at| &lines[at]).collect();
        assert!(!agents.is_empty() && agents.iter().all(|line| line.ends_with(" 0")), "{target}: {agents:?}\n{done}");
        // Else there would be nothing to give up.
        let tools = named(&["(sudo)", "(su)", "(doas)"]);
        let with: Vec<&&String> = tools.iter().filter(|line| !line.ends_with(" 0")).collect();
        assert_eq!(with.is_empty(), tool.is_empty(), "{target}: {tools:?}\n{done}");
        assert!(with.iter().all(|line| line.starts_with(tool)), "{target}: {with:?}\n{done}");
    }
    drop(fleet);
    tag.assert_nothing_left(GONE);
}
