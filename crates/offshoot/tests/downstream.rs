//! Each layer is of use alone: a crate outside the workspace that names just one of them compiles, with only what that
//! one brings along.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A layer, a program that uses it and nothing else, and a crate of ours that it must not bring along.
const LAYERS: &[(&str, &str, &str)] = &[
    (
        "offshoot-wire",
        "fn main() { let child = offshoot_wire::Address::ROOT.child(3); assert!(child.is_ok_and(|child| child.depth() == 1)); }",
        "offshoot-route",
    ),
    (
        "offshoot-route",
        "use offshoot_route::{Config, Node, Time};
         fn main() { let mut node = Node::root(Config::default(), [1; 16], [2; 32], Time::from_micros(0)); assert!(node.poll_event().is_none()); }",
        "offshoot-mux",
    ),
    (
        "offshoot-forward",
        "use offshoot_forward::{Config, Event, Forwarder};
         fn main() {
             let mut root: Forwarder<u32, u8> = Forwarder::new(\"/\".parse().expect(\"an address\"), Config::default());
             let hash = root.register(&b\"content\"[..]);
             root.serve(1, 1, hash);
             assert_eq!(root.poll_event(), Some(Event::Send { exchange: 1 }));
         }",
        "offshoot-route",
    ),
    (
        "offshoot-mux",
        "fn main() -> std::io::Result<()> {
             let status = offshoot_mux::Spawn::new(\"true\").start()?.wait(None)?;
             assert!(status.is_some_and(|status| status.success()));
             Ok(())
         }",
        "offshoot-wire",
    ),
    (
        "offshoot-connect",
        "fn main() { assert!(\"jump/web1\".parse::<offshoot_connect::Target>().is_ok()); }",
        "offshoot-route",
    ),
    (
        "offshoot-node",
        "pub fn id(context: &offshoot_node::Context) -> Result<Vec<u8>, offshoot_node::Error> { Ok(context.command(\"id\").output()?.stdout) }
         fn main() {}",
        "offshoot-program",
    ),
];

#[test]
fn a_crate_outside_the_workspace_builds_against_one_layer_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("downstream");
    for (layer, program, not) in LAYERS {
        let name = format!("downstream-of-{layer}");
        let package = folder.join(&name);
        fs::create_dir_all(package.join("src")).expect("a folder");
        let path = root.join("crates").join(layer);
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{layer} = {{ path = {path:?} }}\n"
        );
        fs::write(package.join("Cargo.toml"), manifest).expect("a manifest");
        fs::write(package.join("src/main.rs"), program).expect("a program");
        // The versions that are at hand, so that nothing is fetched.
        fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).expect("the lock file");
        let cargo = |command: &str| {
            let mut cargo = Command::new(env!("CARGO"));
            // Not the settings of the build that runs this test: its flags would make all be compiled again.
            for (name, _) in std::env::vars_os() {
                if name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME") {
                    cargo.env_remove(name);
                }
            }
            cargo.arg(command).arg("--offline").current_dir(&package).env("CARGO_TARGET_DIR", folder.join("target"));
            cargo
        };
        let check = cargo("check").output().expect("cargo runs");
        assert!(check.status.success(), "{layer}: {}", String::from_utf8_lossy(&check.stderr));
        let tree = cargo("tree").args(["--prefix", "none", "--edges", "normal,build"]).output().expect("cargo runs");
        let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
        let brings = |name: &str| tree.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(brings(layer), "{tree}");
        assert!(!brings(not), "{layer} brings {not} along:\n{tree}");
        fs::remove_dir_all(&package).expect("a folder");
    }
}
