//! What cannot be remote does not compile, and the compiler says why at the user's own code, and what to do.
//!
//! The files in `refused` are the mistakes, and beside each is what the compiler says; in `untravelling` those whose messages
//! are in part the compiler's own words, which change with its version. After a change that is meant:
//! `TRYBUILD=overwrite cargo test -p offshoot --test refused`, and read the difference.

use std::io::Write;
use std::process::Command;

/// The compiler whose words are beside the files in `untravelling`.
const COMPILER: &str = "rustc 1.95.";

const NAME: &str = "every_wrong_use_of_the_attributes_is_told_at_the_users_code_with_what_to_do";

#[test]
fn every_wrong_use_of_the_attributes_is_told_at_the_users_code_with_what_to_do() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/refused/*.rs");
    let version = Command::new("rustc").arg("--version").output().expect("a compiler").stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    if version.starts_with(COMPILER) {
        cases.compile_fail("tests/untravelling/*.rs");
    } else {
        let reason = format!("the messages of tests/untravelling are those of {COMPILER}x, this is {}", version.trim());
        println!("not run: {NAME}: {reason}");
        // Where CI looks for what was not run.
        if let Some(file) = std::env::var_os("OFFSHOOT_NOT_RUN") {
            let mut file =
                std::fs::File::options().append(true).create(true).open(file).expect("the file can be written");
            writeln!(file, "{NAME}\t{reason}").expect("the file can be written");
        }
    }
    cases.pass("tests/accepted/*.rs");
}
