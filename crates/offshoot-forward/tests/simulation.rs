//! Trees of forwarders from a seed; see `sim/mod.rs` for what is checked.

mod sim;

use sim::{Setting, Tally, run};

fn many(seeds: std::ops::Range<u64>, setting: impl Fn(u64) -> Setting) -> Tally {
    let mut total = Tally::default();
    for seed in seeds {
        total.add(&run(setting(seed)));
    }
    total
}

const CLEAN: Setting = Setting {
    seed: 0,
    nodes: 14,
    liars: false,
    losses: false,
    small_caches: false,
    second_sources: false,
    uncles: false,
};

#[test]
fn each_link_carries_a_content_once_and_everybody_gets_it() {
    let total = many(0..250, |seed| Setting { seed, ..CLEAN });
    assert!(total.ready > 2000 && total.joined > 500 && total.failed == 0, "{total:?}");
}

#[test]
fn what_does_not_fit_waits_for_room_and_makes_room() {
    let total = many(0..250, |seed| Setting { seed, small_caches: true, ..CLEAN });
    assert!(total.ready > 2000 && total.evictions > 200 && total.failed == 0, "{total:?}");
}

#[test]
fn s11_liars_alter_nothing_and_are_named() {
    let total = many(0..250, |seed| Setting { seed, liars: true, ..CLEAN });
    assert!(total.ready > 1000 && total.damaged > 200 && total.failed > 200, "{total:?}");
}

#[test]
fn losses_cost_no_survivor_a_content_and_no_link_a_second_way() {
    let total = many(0..300, |seed| Setting { seed, losses: true, small_caches: seed % 3 == 0, ..CLEAN });
    assert!(total.ready > 1000 && total.lost > 500 && total.joined > 200 && total.failed == 0, "{total:?}");
}

#[test]
fn what_is_lost_on_its_way_is_asked_for_elsewhere_and_refused_only_to_those_who_had_bytes() {
    let total = many(0..300, |seed| Setting { seed, losses: true, uncles: true, ..CLEAN });
    assert!(total.ready > 1000 && total.lost > 500 && total.elsewhere > 20, "{total:?}");
    assert!(total.failed * 100 < total.ready, "{total:?}");
}

#[test]
fn r6_every_wait_ends_among_liars_losses_and_small_caches() {
    let total = many(0..300, |seed| Setting {
        seed,
        liars: true,
        losses: true,
        small_caches: seed % 2 == 0,
        second_sources: seed % 3 > 0,
        ..CLEAN
    });
    assert!(total.ready > 1000 && total.lost > 500 && total.damaged > 200 && total.retried > 100, "{total:?}");
}

#[test]
fn with_a_second_source_a_single_liar_costs_nobody_the_content() {
    let one = many(0..250, |seed| Setting { seed, liars: true, second_sources: true, ..CLEAN });
    let none = many(0..250, |seed| Setting { seed, liars: true, ..CLEAN });
    assert!(one.failed * 2 < none.failed, "{} refused with a second source, {} without", one.failed, none.failed);
}

#[test]
fn a_tree_of_1000_contexts_is_served() {
    let total = run(Setting { seed: 7, nodes: 1000, ..CLEAN });
    assert!(total.ready > 500, "{total:?}");
}

#[test]
fn one_seed_gives_one_history() {
    let setting = Setting { seed: 42, liars: true, losses: true, ..CLEAN };
    assert_eq!(run(setting), run(setting));
}
