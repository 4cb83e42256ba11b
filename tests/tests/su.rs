//! su and doas as hops, for machines that have no sudo.

use std::time::Duration;

use offshoot_tests::bounded::{Finished, find_program};
use offshoot_tests::expect::code;
use offshoot_tests::{Fleet, Tag, bed, not_run, or_not_run};

const GONE: Duration = Duration::from_secs(12);

fn attempt(fleet: &Fleet, tag: &Tag, target: &str, input: &[u8]) -> Finished {
    fleet
        .offshoot(
            tag,
            &["exec", "--raw", "--password-command", bed::ANSWER, target, "--", "sh", "-c", "id -un; cat; exit 3"],
        )
        .stdin(input)
        .run()
}

/// All bytes there are: a terminal in the way would change some of them.
fn payload() -> Vec<u8> {
    (0..200_000_u32).map(|index| (index ^ (index >> 8)) as u8).collect()
}

#[track_caller]
fn works(done: &Finished, user: &str, input: &[u8]) {
    assert!(done.code == Some(3), "{done}");
    assert!(
        done.stdout == [format!("{user}\n").as_bytes(), input].concat(),
        "{} bytes came\n{done}",
        done.stdout.len()
    );
}

#[test]
fn su_leads_to_the_other_account_with_its_password_and_refuses_a_wrong_one() {
    let name = "su_leads_to_the_other_account_with_its_password_and_refuses_a_wrong_one";
    let tag = Tag::new("su");
    let fleet = or_not_run!(name, bed::one(&tag));
    let wrong = format!("{} is wrong", fleet.accounts().secret());
    // su does not say whose password it wants: the path does.
    let goal = fleet.accounts().password("h1", "goal");
    bed::answer(&fleet, &[("*sudo-none@h1 -> su:goal", goal), ("*", wrong)]).unwrap();
    let input = payload();
    works(&attempt(&fleet, &tag, "sudo-none@h1/su:goal", &input), "goal", &input);
    // Root is not asked.
    works(&attempt(&fleet, &tag, "h1/su:goal", &input), "goal", &input);
    assert_eq!(bed::asked(&fleet), ["ssh:sudo-none@h1 -> su:goal"]);
    for (target, said) in [
        ("sudo-none@h1/su:root", "password is wrong"),
        ("sudo-none@h1/su:nobody-here", "nobody-here"),
        ("h1/su:p-nologin", "not available"),
    ] {
        let done = attempt(&fleet, &tag, target, b"");
        done.expect_error(code::OURS, &[said]);
        assert!(!done.err().contains(fleet.accounts().secret()), "{done}");
    }
    assert_eq!(bed::refused(&fleet), ["su root"]);
    fleet
        .offshoot(&tag, &["exec", "sudo-none@h1/su:goal", "--", "true"])
        .run()
        .expect_error(code::OURS, &["none was given", "--password-"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn doas_leads_to_root_where_its_rules_allow_it() {
    let name = "doas_leads_to_root_where_its_rules_allow_it";
    if find_program("doas").is_none() {
        not_run!(name, "doas is not installed");
    }
    let tag = Tag::new("doas");
    let fleet = or_not_run!(name, bed::one(&tag));
    let right = fleet.accounts().password("h1", "doas-pw");
    bed::answer(&fleet, &[("doas-pw@h1", right.clone())]).unwrap();
    let input = payload();
    for account in ["doas-pw", "doas-nopass"] {
        works(&attempt(&fleet, &tag, &format!("{account}@h1/doas:root"), &input), "root", &input);
    }
    assert_eq!(bed::asked(&fleet), ["doas-pw@h1"]);
    let done = attempt(&fleet, &tag, "doas-none@h1/doas:root", b"");
    done.expect_error(code::OURS, &["not permitted"]);
    bed::answer(&fleet, &[("*", format!("{right} is wrong"))]).unwrap();
    let done = attempt(&fleet, &tag, "doas-pw@h1/doas:root", b"");
    done.expect_error(code::OURS, &["password is wrong"]);
    assert!(!done.err().contains(fleet.accounts().secret()), "{done}");
    assert_eq!(bed::refused(&fleet), ["doas doas-pw"]);
    tag.assert_nothing_left(GONE);
}
