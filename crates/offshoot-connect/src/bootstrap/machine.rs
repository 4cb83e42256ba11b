//! What a target's `uname` says, and the triple and system call numbers that follow from it.

/// What the probe told about the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `uname -s`, at most 64 bytes.
    pub system: String,
    /// `uname -m`, at most 64 bytes.
    pub machine: String,
}

/// A kind of machine that there can be an agent for.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) triple: &'static str,
    /// What `uname -m` says there, as patterns of the shell's `case`.
    pub(super) names: &'static [&'static str],
    pub(super) memfd_create: u32,
    pub(super) execveat: u32,
}

/// A 32-bit userland on a 64-bit kernel needs no row of its own: the agent is static, so the kernel's width counts.
static MACHINES: [Machine; 5] = [
    Machine { triple: "x86_64-unknown-linux-musl", names: &["x86_64", "amd64"], memfd_create: 319, execveat: 322 },
    Machine { triple: "aarch64-unknown-linux-musl", names: &["aarch64", "arm64"], memfd_create: 279, execveat: 281 },
    Machine { triple: "i686-unknown-linux-musl", names: &["i?86"], memfd_create: 356, execveat: 358 },
    Machine {
        triple: "armv7-unknown-linux-musleabihf",
        // A 64-bit ARM kernel calls itself armv8l towards a process with a 32-bit personality.
        names: &["armv7*", "armv8l"],
        memfd_create: 385,
        execveat: 387,
    },
    Machine { triple: "riscv64gc-unknown-linux-musl", names: &["riscv64"], memfd_create: 279, execveat: 281 },
];

impl Machine {
    /// The machine that `uname -m` calls `name`.
    pub(super) fn named(name: &str) -> Option<&'static Machine> {
        MACHINES.iter().find(|machine| machine.names.iter().any(|pattern| matches(pattern, name)))
    }

    /// The machine of a triple. The part behind the machine does not matter: a program image can be of a `gnu` triple.
    pub(super) fn of_triple(triple: &str) -> Option<&'static Machine> {
        let arch = triple.split('-').next()?;
        let arch = match arch {
            "i586" | "i386" => "i686",
            "armv7" | "armv7a" => "armv7l",
            "riscv64gc" => "riscv64",
            other => other,
        };
        Machine::named(arch)
    }
}

/// The two wildcards of the table: `?` for one byte, `*` at the end for any.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, open) = match pattern.strip_suffix('*') {
        Some(head) => (head, true),
        None => (pattern, false),
    };
    let fits = |(p, n): (u8, u8)| p == b'?' || p == n;
    (name.len() == pattern.len() || open && name.len() > pattern.len()) && pattern.bytes().zip(name.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uname_names_map_to_triples() {
        for (name, triple) in [
            ("x86_64", "x86_64-unknown-linux-musl"),
            ("amd64", "x86_64-unknown-linux-musl"),
            ("aarch64", "aarch64-unknown-linux-musl"),
            ("arm64", "aarch64-unknown-linux-musl"),
            ("i386", "i686-unknown-linux-musl"),
            ("i686", "i686-unknown-linux-musl"),
            ("armv7l", "armv7-unknown-linux-musleabihf"),
            ("armv8l", "armv7-unknown-linux-musleabihf"),
            ("riscv64", "riscv64gc-unknown-linux-musl"),
        ] {
            assert_eq!(Machine::named(name).map(|m| m.triple), Some(triple), "{name}");
        }
        for name in ["", "armv6l", "armv5tel", "i6866", "x86_64x", "ppc64le", "mips", "s390x", "loongarch64", "*", "i*"]
        {
            assert!(Machine::named(name).is_none(), "{name}");
        }
    }

    #[test]
    fn every_triple_of_the_table_leads_back_to_its_machine() {
        for machine in &MACHINES {
            assert_eq!(Machine::of_triple(machine.triple).map(|m| m.triple), Some(machine.triple));
        }
        let gnu = Machine::of_triple("x86_64-unknown-linux-gnu").unwrap();
        assert_eq!(gnu.triple, "x86_64-unknown-linux-musl");
        assert!(Machine::of_triple("sparc-unknown-linux-gnu").is_none());
    }
}
