//! The README's first command, as it stands there. (The second one is what runs this test.)

use std::path::Path;
use std::time::Duration;

use offshoot_tests::{Tag, bounded};

/// The commands of the fenced blocks of a shell, in order.
fn commands(readme: &str) -> Vec<&str> {
    readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).map(str::trim).collect()
}

#[test]
fn the_first_command_of_the_readme_grows_a_tree_uses_it_and_leaves_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let commands = commands(&readme);
    assert_eq!(commands.get(1), Some(&"cargo xtask test"), "the second command is the tests'");
    let tag = Tag::new("readme");
    let mut command = tag.command("sh");
    command.arg("-c").arg(commands[0]).current_dir(&root);
    let done = bounded::run(&mut command, None, Duration::from_secs(600));
    assert_eq!(done.code, Some(0), "{done}");
    let text = String::from_utf8_lossy(&done.stdout);
    for part in ["grew 15 contexts, three levels deep", "/2/1/0", "step 2", "exit status 3", "nothing is left of them"]
    {
        assert!(text.contains(part), "{part:?} is missing\n{done}");
    }
    tag.assert_nothing_left(Duration::from_secs(6));
}
