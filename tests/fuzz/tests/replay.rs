//! Every input of every corpus, and a few thousand made up from a fixed seed, through its target: what fuzzing has found
//! or reached once stays good, in seconds and on any compiler.

use std::fs;
use std::path::Path;

use offshoot_fuzz::{TARGETS, Target};

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("no corpus in {}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let bytes = fs::read(&path).expect("a readable file");
            (path.display().to_string(), bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

fn run(target: &Target, what: &str, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    assert!(outcome.is_ok(), "{}: {what}: \"{}\"", target.name, input.escape_ascii());
}

/// A fixed sequence: each failure comes again.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn replay(name: &str) {
    let target = offshoot_fuzz::target(name).expect("a target");
    let inputs = corpus(target);
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    for (path, input) in &inputs {
        run(target, path, input);
    }
    run(target, "the empty input", &[]);
    // Neighbours of what is known reach deeper than noise does.
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..600 {
        let (_, input) = &inputs[next(&mut state) as usize % inputs.len()];
        let mut input = input.clone();
        input.truncate(target.longest);
        for _ in 0..=next(&mut state) % 4 {
            let at = next(&mut state) as usize % (input.len() + 1);
            match next(&mut state) % 4 {
                0 => input.truncate(at),
                1 => input.insert(at, next(&mut state) as u8),
                _ => {
                    if let Some(byte) = input.get_mut(at) {
                        *byte = next(&mut state) as u8;
                    }
                }
            }
        }
        run(target, &format!("made up, round {round}"), &input);
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let here = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), here);
        }
    };
}

replays! {
    frames values untrusted hello escape grants hostile_child hostile_parent two_nodes bootstrap prompts bundle unpack
    filters target_paths node_sets
}
