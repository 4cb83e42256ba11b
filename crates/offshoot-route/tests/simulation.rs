//! The deterministic simulation of whole trees; see `sim/mod.rs` for what is checked.
//!
//! Ten thousand seeds in four tests, so that they run side by side.

mod sim;

use sim::{Outcome, Setting, run};

fn small_trees(from: u64) {
    let mut total = Outcome::default();
    for seed in from..from + 2500 {
        total.add(&run(Setting::small(seed)));
    }
    // A simulation in which nothing happens would pass, too.
    let busy = total.answered > 20_000 && total.failed > 5000 && total.cancelled > 5000;
    assert!(busy && total.evil_frames > 200_000 && total.evil_links_closed > 1000, "{total:?}");
}

#[test]
fn small_trees_keep_every_promise_seeds_0_to_2499() {
    small_trees(0);
}

#[test]
fn small_trees_keep_every_promise_seeds_2500_to_4999() {
    small_trees(2500);
}

#[test]
fn small_trees_keep_every_promise_seeds_5000_to_7499() {
    small_trees(5000);
}

#[test]
fn small_trees_keep_every_promise_seeds_7500_to_9999() {
    small_trees(7500);
}

#[test]
fn a_tree_of_1200_nodes_keeps_every_promise() {
    let outcome = run(Setting::large(1, 1200));
    assert!(outcome.answered > 500, "{outcome:?}");
}

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(run(Setting::small(42)), run(Setting::small(42)));
}
