//! The target triples that an agent is built for, and what each is called elsewhere.

use anyhow::{Context as _, Result};

/// A target triple.
#[derive(Debug, PartialEq, Eq)]
pub struct Triple {
    /// Rust's name.
    pub name: &'static str,
    /// `e_machine` of its executables.
    pub machine: u16,
    /// Architecture, as in `qemu-ARCH`.
    pub qemu: &'static str,
    /// Zig's name.
    pub zig: &'static str,
    /// The folder under `/usr/lib` in which Debian keeps musl for it.
    pub musl: &'static str,
}

/// All triples known here; the first two are built by default.
pub const ALL: [Triple; 5] = [
    Triple {
        name: "x86_64-unknown-linux-musl",
        machine: 62,
        qemu: "x86_64",
        zig: "x86_64-linux-musl",
        musl: "x86_64-linux-musl",
    },
    Triple {
        name: "aarch64-unknown-linux-musl",
        machine: 183,
        qemu: "aarch64",
        zig: "aarch64-linux-musl",
        musl: "aarch64-linux-musl",
    },
    Triple {
        name: "i686-unknown-linux-musl",
        machine: 3,
        qemu: "i386",
        zig: "x86-linux-musl",
        musl: "i386-linux-musl",
    },
    Triple {
        name: "armv7-unknown-linux-musleabihf",
        machine: 40,
        qemu: "arm",
        zig: "arm-linux-musleabihf",
        musl: "arm-linux-musleabihf",
    },
    Triple {
        name: "riscv64gc-unknown-linux-musl",
        machine: 243,
        qemu: "riscv64",
        zig: "riscv64-linux-musl",
        musl: "riscv64-linux-musl",
    },
];

impl Triple {
    /// The triple of that name.
    ///
    /// # Errors
    ///
    /// When it is none of [`ALL`].
    pub fn named(name: &str) -> Result<&'static Triple> {
        ALL.iter().find(|triple| triple.name == name).with_context(|| {
            let known: Vec<&str> = ALL.iter().map(|t| t.name).collect();
            format!("no agent can be built for {name}\n  known: {}", known.join(", "))
        })
    }

    /// The triple whose executables this machine runs by itself.
    pub fn of_this_machine() -> Option<&'static Triple> {
        ALL.iter().find(|triple| triple.name.starts_with(std::env::consts::ARCH))
    }

    /// Whether this machine runs its executables without help.
    pub fn is_native(&self) -> bool {
        let arch = std::env::consts::ARCH;
        self.name.starts_with(arch) || (arch == "x86_64" && self.qemu == "i386")
    }
}
