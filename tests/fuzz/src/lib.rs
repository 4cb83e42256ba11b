//! Fuzz targets: each decoder and each state machine that eats foreign bytes, as a function of bytes that panics when
//! something that must hold does not.
//!
//! Owns what is fed and what is asserted, and the table of targets. Must not know who makes the bytes: libFuzzer by
//! `cargo xtask fuzz`, or the replay of the corpus, which is an ordinary test. Every target is deterministic, keeps
//! nothing from one run to the next, and runs on the caller's thread.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod feed;
// The command is a program and no library; its parser is taken in by its file.
#[allow(dead_code, reason = "the command uses the rest")]
mod nodeset;
mod targets;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Its name: that of its corpus' folder, too.
    pub name: &'static str,
    /// The longest input that makes sense, in bytes.
    pub longest: usize,
    /// Runs it once.
    ///
    /// # Panics
    ///
    /// When the product does what it must not: that is what is looked for.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", longest: 4096, run: targets::wire::frames },
    Target { name: "values", longest: 4096, run: targets::wire::values },
    Target { name: "untrusted", longest: 4096, run: targets::wire::untrusted },
    Target { name: "hello", longest: 4200, run: targets::wire::hello },
    Target { name: "escape", longest: 1024, run: targets::wire::escape },
    Target { name: "grants", longest: 2048, run: targets::grants::grants },
    Target { name: "hostile_child", longest: 8192, run: targets::core::hostile_child },
    Target { name: "hostile_parent", longest: 8192, run: targets::core::hostile_parent },
    Target { name: "two_nodes", longest: 4096, run: targets::pair::two_nodes },
    Target { name: "bootstrap", longest: 8192, run: targets::connect::bootstrap },
    Target { name: "prompts", longest: 2048, run: targets::prompt::prompts },
    Target { name: "bundle", longest: 8192, run: targets::connect::bundle },
    Target { name: "unpack", longest: 4096, run: targets::connect::unpack },
    Target { name: "filters", longest: 1024, run: targets::connect::filters },
    Target { name: "target_paths", longest: 512, run: targets::connect::target_paths },
    Target { name: "node_sets", longest: 256, run: targets::connect::node_sets },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
