//! sudo as a hop, with every setting that changes what it asks, says or does with its terminal.

use std::thread;
use std::time::Duration;

use offshoot_tests::bounded::Finished;
use offshoot_tests::expect::code;
use offshoot_tests::{Fleet, Profile, Tag, bed, not_run, or_not_run};

const GONE: Duration = Duration::from_secs(12);

/// What runs behind sudo: something that tells whether input, output and exit codes pass as they are.
const SCRIPT: &str = "id -un; cat; exit 3";

fn attempt(fleet: &Fleet, tag: &Tag, target: &str, input: &[u8]) -> Finished {
    fleet
        .offshoot(tag, &["exec", "--raw", "--password-command", bed::ANSWER, target, "--", "sh", "-c", SCRIPT])
        .stdin(input)
        .run()
}

/// All bytes there are, more than once: a terminal in the way would change some of them.
fn payload() -> Vec<u8> {
    (0..200_000_u32).map(|index| (index ^ (index >> 8)) as u8).collect()
}

#[track_caller]
fn works(done: &Finished, target: &str, user: &str, input: &[u8]) {
    assert!(done.code == Some(3), "{target}\n{done}");
    let expected = [format!("{user}\n").as_bytes(), input].concat();
    assert!(done.stdout == expected, "{target}: {} bytes of {}\n{done}", done.stdout.len(), expected.len());
}

/// Who answers for all accounts of h1, each with its own password but for those that give another's.
fn answer(fleet: &Fleet, others: &[(&str, String)]) {
    let own: Vec<(String, String)> = offshoot_tests::accounts::SUDO
        .iter()
        .chain(&["root"])
        .map(|name| ((*name).to_string(), fleet.accounts().password("h1", name)))
        .collect();
    let mut answers: Vec<(&str, String)> = others.to_vec();
    answers.extend(own.iter().map(|(pattern, password)| (pattern.as_str(), password.clone())));
    bed::answer(fleet, &answers).unwrap();
}

/// Goes through targets, three at a time.
fn side_by_side<T: Sync>(cases: &[T], each: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for some in cases.chunks(cases.len().div_ceil(3)) {
            let each = &each;
            scope.spawn(move || some.iter().for_each(each));
        }
    });
}

#[test]
fn sudo_with_any_setting_leads_to_the_other_account() {
    let name = "sudo_with_any_setting_leads_to_the_other_account";
    let tag = Tag::new("sudo");
    let fleet = or_not_run!(name, bed::one(&tag));
    // Whosever password it is: sudo names that account when it asks.
    answer(&fleet, &[]);
    let accounts = [
        "nopass", "pw", "lecture", "tty", "ttypw", "nopty", "log", "stars", "prompt", "override", "target", "once",
        "insults", "root", "keep",
    ];
    let input = payload();
    side_by_side(&accounts, |account| {
        let target = format!("sudo-{account}@h1/sudo:root");
        works(&attempt(&fleet, &tag, &target, &input), &target, "root", &input);
    });
    let target = "sudo-pw@h1/sudo:goal";
    works(&attempt(&fleet, &tag, target, &input), target, "goal", &input);
    let mut asked = bed::asked(&fleet);
    asked.sort();
    let mut expected: Vec<String> =
        accounts.iter().filter(|name| !["nopass", "tty"].contains(*name)).map(|name| format!("sudo-{name}")).collect();
    // By their own settings sudo wants another's password from these two.
    expected.retain(|name| !["sudo-target", "sudo-root"].contains(&name.as_str()));
    expected.extend(["root", "root", "sudo-pw"].map(String::from));
    expected.sort();
    assert_eq!(asked, expected);
    assert_eq!(bed::refused(&fleet), [""; 0]);
    tag.assert_nothing_left(GONE);
}

/// The file that each agent on the way up runs, from that which runs this on: the two agents of one file are two lines of it.
const IMAGES: &str = r#"
p=$PPID
while [ "$p" -gt 1 ]; do
    case $(readlink /proc/$p/exe) in /memfd:*) stat -Lc %i /proc/$p/exe ;; esac
    p=$(sed 's/.*) . \([0-9]*\) .*/\1/' /proc/$p/stat)
done
"#;

#[test]
fn root_behind_sudo_runs_the_image_that_is_there_and_is_sent_none() {
    let name = "root_behind_sudo_runs_the_image_that_is_there_and_is_sent_none";
    let tag = Tag::new("sudo-image");
    let fleet = or_not_run!(name, bed::one(&tag));
    answer(&fleet, &[]);
    for account in ["nopass", "pw", "tty", "nopty", "log"] {
        let target = format!("sudo-{account}@h1/sudo:root");
        let args = ["exec", "--raw", "--password-command", bed::ANSWER, &target, "--", "sh", "-c", IMAGES];
        let done = fleet.offshoot(&tag, &args).run();
        assert!(done.code == Some(0), "{target}\n{done}");
        let processes: Vec<&str> = std::str::from_utf8(&done.stdout).expect("numbers").lines().collect();
        // Each of the two agents has its guard.
        assert!(processes.len() == 4 && processes.iter().all(|image| *image == processes[0]), "{target}\n{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn what_sudo_refuses_is_an_error_that_says_why() {
    let name = "what_sudo_refuses_is_an_error_that_says_why";
    let tag = Tag::new("refuses");
    let fleet = or_not_run!(name, bed::one(&tag));
    let wrong = format!("{} is wrong", fleet.accounts().secret());
    answer(
        &fleet,
        &["pw", "once", "insults", "stars", "lecture"]
            .map(|name| (format!("sudo-{name}"), wrong.clone()))
            .each_ref()
            .map(|(p, w)| (p.as_str(), w.clone())),
    );
    let cases: [(&str, &[&str]); 11] = [
        ("sudo-pw@h1/sudo:root", &["password is wrong", "sudo:root"]),
        ("sudo-once@h1/sudo:root", &["password is wrong"]),
        ("sudo-insults@h1/sudo:root", &["password is wrong"]),
        ("sudo-stars@h1/sudo:root", &["password is wrong"]),
        ("sudo-lecture@h1/sudo:root", &["password is wrong"]),
        ("sudo-none@h1/sudo:root", &["not in the sudoers"]),
        ("sudo-one@h1/sudo:root", &["not allowed"]),
        ("sudo-nopass@h1/sudo:nobody-here", &["nobody-here", "user"]),
        // These cannot log in any more, but who has become one of them before would have come this far.
        ("sudo-nopass@h1/sudo:sudo-ended/sudo:root", &["account"]),
        ("sudo-nopass@h1/sudo:sudo-stale/sudo:root", &["password", "expired"]),
        ("u-nohome@h1/sudo:root", &["u-nohome"]),
    ];
    side_by_side(&cases, |(target, said)| {
        let done = attempt(&fleet, &tag, target, b"");
        assert!(done.code == Some(code::OURS), "{target}\n{done}");
        done.expect_error(code::OURS, said);
        assert!(!done.err().contains(fleet.accounts().secret()), "{done}");
    });
    // Each was tried once; of the others sudo takes the right password before it refuses, or asks for none.
    let once = ["insults", "lecture", "once", "pw", "stars"];
    assert_eq!(bed::refused(&fleet), once.map(|name| format!("sudo sudo-{name}")));
    // So says its own log; but a sudo that is ended while it asks again may be gone before it has written it.
    let log = fleet.on("h1", "cat /var/log/sudo.log").out().replace("\n    ", " ");
    for account in once {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!(" sudo-{account} :"))).collect();
        assert!(
            lines.iter().all(|line| line.contains(" 1 incorrect password attempt ")),
            "{account}: {lines:?}\n{log}"
        );
        assert!(lines.len() == 1 || lines.is_empty() && account != "once", "{account}: {lines:?}\n{log}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn s19_what_a_login_shell_behind_sudo_asks_gets_nothing() {
    let name = "s19_what_a_login_shell_behind_sudo_asks_gets_nothing";
    let tag = Tag::new("sudologin");
    let fleet = or_not_run!(name, bed::one(&tag));
    let password = fleet.accounts().password("h1", "sudo-pw");
    bed::answer(&fleet, &[("*", password)]).unwrap();
    // The account's own start file, on the terminal that sudo asked on.
    let asks =
        "stty -echo </dev/tty; printf 'Password: ' >/dev/tty; read -r -t 2 got </dev/tty; echo \"got:$got\" >>~/got";
    std::fs::write(fleet.shared().join("profile"), asks).unwrap();
    fleet.on("h1", "cp /run/fixture/profile /home/goal/.profile").expect_code(0);
    for (account, asked) in [("sudo-nopass@h1", &[][..]), ("sudo-pw@h1", &["sudo-pw"])] {
        let arguments = [bed::ANSWER, account, "sudo:-goal", "--", "id", "-un"];
        let done = fleet.example(&tag, "passwords", &arguments).run();
        assert_eq!(fleet.on("h1", "cat /home/goal/got; rm -f /home/goal/got").out(), "got:\n", "{account}\n{done}");
        assert_eq!(bed::asked(&fleet), asked, "{account}\n{done}");
        assert!(done.code == Some(0) && done.out() == "goal\n", "{account}\n{done}");
    }
    fleet.on("h1", "rm /home/goal/.profile").expect_code(0);
    tag.assert_nothing_left(GONE);
}

#[test]
fn sudo_without_anybody_to_ask_ends_at_once_and_says_what_to_do() {
    let name = "sudo_without_anybody_to_ask_ends_at_once_and_says_what_to_do";
    let tag = Tag::new("sudonobody");
    let fleet = or_not_run!(name, bed::one(&tag));
    for account in ["pw", "ttypw", "stars", "prompt"] {
        let target = format!("sudo-{account}@h1/sudo:root");
        let done = fleet.offshoot(&tag, &["exec", &target, "--", "true"]).run();
        done.expect_error(code::OURS, &["none was given", "sudo:root", "--password-"]);
        assert!(done.elapsed < Duration::from_secs(20), "{done}");
    }
    for account in ["nopass", "tty"] {
        let target = format!("sudo-{account}@h1/sudo:root");
        let done = fleet.offshoot(&tag, &["exec", &target, "--", "id", "-un"]).run();
        done.expect_code(0).expect_lines(&target, &["root"]);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn sudo_that_does_not_find_its_own_host_says_so_and_leads_there_all_the_same() {
    let name = "sudo_that_does_not_find_its_own_host_says_so_and_leads_there_all_the_same";
    let tag = Tag::new("sudohost");
    let fleet = or_not_run!(name, bed::one(&tag));
    fleet.on("h1", "hostname not-in-any-list").expect_code(0);
    let said = fleet.on("h1", "sudo -n true").err();
    assert!(said.contains("unable to resolve host not-in-any-list"), "{said:?}");
    answer(&fleet, &[("sudo-once", "wrong".into())]);
    for account in ["nopass", "pw", "ttypw"] {
        let target = format!("sudo-{account}@h1/sudo:root");
        works(&attempt(&fleet, &tag, &target, b"x"), &target, "root", b"x");
    }
    attempt(&fleet, &tag, "sudo-once@h1/sudo:root", b"").expect_error(code::OURS, &["password is wrong"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn sudo_rs_leads_to_the_other_account_too() {
    let name = "sudo_rs_leads_to_the_other_account_too";
    let tag = Tag::new("sudors");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[bed::peer("h1").profile(Profile::SudoRs)]));
    answer(&fleet, &[]);
    let input = payload();
    side_by_side(&["nopass", "pw", "stars", "nopty"], |account| {
        let target = format!("sudo-{account}@h1/sudo:root");
        works(&attempt(&fleet, &tag, &target, &input), &target, "root", &input);
    });
    let target = "sudo-pw@h1/sudo:goal";
    works(&attempt(&fleet, &tag, target, &input), target, "goal", &input);
    assert_eq!(bed::refused(&fleet), [""; 0]);
    let wrong = format!("{} is wrong", fleet.accounts().secret());
    answer(&fleet, &["sudo-nopty", "sudo-pw", "sudo-stars"].map(|name| (name, wrong.clone())));
    let cases: [(&str, &[&str]); 6] = [
        ("sudo-nopty@h1/sudo:root", &["password is wrong", "sudo:root"]),
        ("sudo-pw@h1/sudo:root", &["password is wrong"]),
        ("sudo-stars@h1/sudo:root", &["password is wrong"]),
        ("sudo-none@h1/sudo:root", &["sudo-none", "sudoers"]),
        ("sudo-one@h1/sudo:root", &["sudo-one", "sudoers"]),
        ("sudo-nopass@h1/sudo:nobody-here", &["nobody-here", "user"]),
    ];
    side_by_side(&cases, |(target, said)| {
        let done = attempt(&fleet, &tag, target, b"");
        done.expect_error(code::OURS, said);
        assert!(!done.err().contains(fleet.accounts().secret()), "{done}");
    });
    let done = fleet.offshoot(&tag, &["exec", "sudo-pw@h1/sudo:root", "--", "true"]).run();
    done.expect_error(code::OURS, &["none was given", "sudo:root", "--password-"]);
    assert_eq!(bed::refused(&fleet), ["nopty", "pw", "stars"].map(|name| format!("sudo sudo-{name}")));
    tag.assert_nothing_left(GONE);
}

#[test]
fn sudo_in_another_language_is_understood() {
    let name = "sudo_in_another_language_is_understood";
    let tag = Tag::new("german");
    let fleet = or_not_run!(name, bed::one(&tag));
    if let Err(reason) = bed::speak_german(&fleet) {
        tag.assert_nothing_left(GONE);
        not_run!(name, reason);
    }
    answer(&fleet, &[("sudo-once", "falsch".into()), ("sudo-insults", "falsch".into())]);
    let spoken = fleet.offshoot(&tag, &["exec", "sudo-nopass@h1", "--", "sh", "-c", "echo $LANG"]).run();
    spoken.expect_lines("sudo-nopass@h1", &["de_DE.UTF-8"]);
    side_by_side(&["pw", "prompt", "lecture"], |account| {
        let target = format!("sudo-{account}@h1/sudo:root");
        works(&attempt(&fleet, &tag, &target, b"x"), &target, "root", b"x");
    });
    side_by_side(&["once", "insults", "none"], |account| {
        let done = attempt(&fleet, &tag, &format!("sudo-{account}@h1/sudo:root"), b"");
        let said = if *account == "none" { "sudoers" } else { "password is wrong" };
        done.expect_error(code::OURS, &[said]);
    });
    tag.assert_nothing_left(GONE);
}
