//! Checks that need a process to themselves: they start, adopt, reap, signal and fork. Each runs in a fresh process of
//! this binary, on its only thread, once as the system is and once for each older kernel it is to work on too. After
//! each no child, descriptor or thread may be left.

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
mod children;
#[cfg(not(loom))]
mod ending;
#[cfg(not(loom))]
mod orphans;
#[cfg(not(loom))]
mod starting;
#[cfg(not(loom))]
mod this;

#[cfg(not(loom))]
fn main() {
    harness::main();
}

#[cfg(not(loom))]
mod harness {
    use std::io::Read;
    use std::process::{Command, Stdio, exit};
    use std::time::{Duration, Instant};

    use offshoot_mux::{EndPlan, Reaper, end_processes, fallback, process, tree};

    /// A name that states the behaviour, the check, and the switches of `fallback` to repeat it with.
    pub(crate) type Check = (&'static str, fn(), &'static [u32]);

    const NAME: &str = "OFFSHOOT_MUX_CHECK";
    const FORCE: &str = "OFFSHOOT_MUX_FORCE";
    const LIMIT: Duration = Duration::from_secs(60);

    /// Printed by a check that cannot run here, with the reason.
    pub(crate) const NOT_RUN: &str = "NOT RUN: ";

    pub(crate) fn main() {
        let checks: Vec<Check> =
            [super::starting::CHECKS, super::children::CHECKS, super::ending::CHECKS, super::this::CHECKS].concat();
        if let Some(role) = std::env::args().nth(1).filter(|arg| arg.starts_with("role:")) {
            return super::this::role(&role);
        }
        if let Ok(name) = std::env::var(NAME) {
            return run(&checks, &name);
        }
        let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        // Whatever a check leaves becomes ours: found, reported and ended.
        process::set_child_subreaper().unwrap();
        let (mut passed, mut failed) = (0, 0);
        for (name, _, variants) in &checks {
            if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
                continue;
            }
            for force in [0].iter().chain(*variants) {
                let began = Instant::now();
                let (ok, output) = start(name, *force);
                let verdict = match (ok, output.lines().find_map(|line| line.strip_prefix(NOT_RUN))) {
                    (true, Some(reason)) => format!("not run: {reason}"),
                    (true, None) => {
                        passed += 1;
                        format!("ok ({} ms)", began.elapsed().as_millis())
                    }
                    (false, _) => {
                        failed += 1;
                        format!("FAILED\n{output}")
                    }
                };
                let variant = if *force == 0 { String::new() } else { format!(" [without {force:#x}]") };
                println!("test {name}{variant} ... {verdict}");
            }
        }
        println!("\ntest result: {passed} passed; {failed} failed");
        exit(i32::from(failed > 0));
    }

    fn start(name: &str, force: u32) -> (bool, String) {
        let (mut output, write) = std::io::pipe().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(NAME, name)
            .env(FORCE, force.to_string())
            .stdin(Stdio::null())
            .stdout(write.try_clone().unwrap())
            .stderr(write)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > LIMIT => {
                    child.kill().unwrap();
                    break child.wait().unwrap();
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let left = crate::orphans::left();
        let plan = EndPlan { term_first: false, ..EndPlan::default() };
        let ended = end_processes(|| tree::descendants(process::id()), plan);
        Reaper.reap();
        // Not to the end: should something live on that holds the pipe, say so and go on.
        offshoot_mux::io::set_nonblocking(&output, true).unwrap();
        let mut text = Vec::new();
        let whole = output.read_to_end(&mut text).is_ok();
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if !left.is_empty() || !whole {
            text.push_str(&format!("\nprocesses were left: {left:?}, of them could not be ended: {:?}\n", ended.left));
        }
        (whole && left.is_empty() && status.success(), text + &status.to_string())
    }

    fn run(checks: &[Check], name: &str) {
        let (_, check, _) = checks.iter().find(|(known, ..)| *known == name).unwrap();
        // Not inherited by what the checks start. The only thread is this one.
        let force = std::env::var(FORCE).unwrap().parse().unwrap();
        fallback::force(force);
        let before = descriptors();
        check();
        fallback::force(0);
        assert_eq!(descriptors(), before, "a descriptor was left");
        assert!(Reaper.reap().childless, "a child was left: {:?}", children());
        let began = Instant::now();
        while threads() > 1 {
            assert!(began.elapsed() < Duration::from_secs(5), "a thread was left");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn children() -> Vec<tree::Proc> {
        tree::descendants(process::id())
    }

    fn threads() -> usize {
        std::fs::read_dir("/proc/self/task").unwrap().count()
    }

    fn descriptors() -> Vec<(String, String)> {
        let mut list: Vec<_> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let target = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
                (!target.starts_with("/proc/")).then(|| (entry.file_name().to_string_lossy().into_owned(), target))
            })
            .collect();
        list.sort();
        list
    }
}
