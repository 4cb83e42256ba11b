//! One program for all targets: `OFFSHOOT_FUZZ_TARGET` names the one to run, libFuzzer's own arguments follow. The name
//! `list` has all of them printed, each with the longest input that makes sense.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use offshoot_fuzz::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("OFFSHOOT_FUZZ_TARGET").unwrap_or_default();
        if name == "list" {
            for target in offshoot_fuzz::TARGETS {
                println!("{} {}", target.name, target.longest);
            }
            std::process::exit(0);
        }
        let Some(target) = offshoot_fuzz::target(&name) else {
            eprintln!("OFFSHOOT_FUZZ_TARGET names no target: {name:?}");
            std::process::exit(2);
        };
        TARGET.get_or_init(|| target);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
