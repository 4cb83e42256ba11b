//! The limits that `docs/usage.md` states are those that the crates have. (The command's own are looked for beside each.)

use std::sync::Arc;
use std::time::Duration;

use offshoot::methods::{Method, Ssh};
use offshoot::{Limits, WorkerLimits};
use offshoot_node::{Options, OwnImage};
use offshoot_route::Config;

const PAGE: &str = include_str!("../../docs/usage.md");

fn count(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", number / 1000, number % 1000),
    }
}

fn mib(bytes: u64) -> String {
    assert!(bytes.is_multiple_of(1 << 20), "{bytes} bytes are no whole MiB");
    format!("{} MiB", bytes >> 20)
}

fn seconds(time: Duration) -> String {
    assert_eq!(time.subsec_nanos(), 0, "{time:?} are no whole seconds");
    format!("{} s", time.as_secs())
}

#[test]
fn the_page_for_users_states_the_limits_as_they_are() {
    let config = Config::default();
    let options = Options::new(Arc::new(OwnImage::new()));
    let workers = WorkerLimits::default();
    let recipe = Ssh::to("web1").password("x").recipe().expect("a recipe");
    let prompts = recipe.prompts.expect("ssh asks");
    let millis = |millis: u32| seconds(Duration::from_millis(millis.into()));
    let rows = [
        ("hops of a target", count(Limits::DEPTH)),
        ("children of a context", count(config.max_children)),
        ("connects that a context makes at once", count(options.connects)),
        ("a whole connect", millis(recipe.deadline_ms)),
        ("a stage of it in which nothing comes", millis(recipe.stage_ms)),
        ("an answer to what a login asks", millis(prompts.answer_ms)),
        ("questions in one connect", count(Limits::QUESTIONS)),
        ("a password or passphrase", format!("{} bytes", count(Limits::SECRET))),
        ("until a quiet link carries a sign of life", seconds(config.limits.heartbeat)),
        ("until a silent link is lost", seconds(config.limits.silence)),
        ("the arguments, or the value, of a call", mib(Limits::CALL)),
        ("contexts and ends of channels in one of these", count(Limits::CARRIED)),
        ("a message of a channel", mib(Limits::ITEM as u64)),
        ("an agent or image as it is sent", mib(Limits::CONTENT)),
        ("calls side by side in a worker", count(workers.calls as usize)),
        ("until an idle worker ends", seconds(workers.idle.expect("it ends"))),
        ("workers of a program in a context", count(workers.count as usize)),
        ("calls of a program under way", count(config.max_pending)),
    ];
    for (what, limit) in rows {
        let row = format!("| {what} | {limit} |");
        assert!(PAGE.lines().any(|line| line.starts_with(&row)), "docs/usage.md has no row `{row}`");
    }
}
