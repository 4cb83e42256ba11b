//! Functions of a program in contexts on other hosts: its image goes there by itself, over each link once.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use offshoot_tests::bounded::Finished;
use offshoot_tests::{Fleet, Peer, Tag, host, or_not_run, product};

const GONE: Duration = Duration::from_secs(12);

/// What the program says of a context's contents.
#[track_caller]
fn stats(done: &Finished, name: &str) -> HashMap<String, u64> {
    numbers(done, name, "asked")
}

/// The numbers on a line, by the word before each.
#[track_caller]
fn numbers(done: &Finished, name: &str, first: &str) -> HashMap<String, u64> {
    let head = format!("{name}: {first} ");
    let found = done.out();
    let line = found.lines().find(|line| line.starts_with(&head)).unwrap_or_else(|| panic!("no {name}\n{done}"));
    let words: Vec<&str> = line[name.len() + 2..].split(' ').collect();
    words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().expect("a number"))).collect()
}

#[track_caller]
fn works(done: &Finished) {
    assert!(done.code == Some(0), "{done}");
}

#[test]
fn a_function_runs_on_a_host_behind_another_and_as_another_user() {
    let name = "a_function_runs_on_a_host_behind_another_and_as_another_user";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("far");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2"), Peer::new("h3")]));
    for (hops, path) in [
        (&["h1"][..], "ssh:h1"),
        (&["h1", "h2", "h3"], "ssh:h1 -> ssh:h2 -> ssh:h3"),
        (&["h1", "sudo:nobody"], "ssh:h1 -> sudo:nobody"),
        (&["sudo:nobody"], "sudo:nobody"),
    ] {
        let words: Vec<&str> = ["chain"].iter().chain(hops).copied().collect();
        let done = or_not_run!(name, fleet.calls(&tag, &words)).run();
        works(&done);
        let user = if hops.last() == Some(&"sudo:nobody") { "65534" } else { "0" };
        let line = format!(" of user {user} in {path} -> worker, after");
        assert_eq!(done.out().matches(&line).count(), 2, "{done}");
        println!("{}", done.out());
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn what_runs_is_what_is_called_whatever_becomes_of_its_file_and_no_other_file_is_taken_for_it() {
    let name = "what_runs_is_what_is_called_whatever_becomes_of_its_file_and_no_other_file_is_taken_for_it";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("rebuilt");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let program = or_not_run!(name, product::calls());
    let (arch, other) = if cfg!(target_arch = "x86_64") { ("x86_64", "aarch64") } else { ("aarch64", "x86_64") };
    let [arch, other] = [arch, other].map(|arch| format!("{arch}-unknown-linux-musl"));
    let (folder, place) = ("/tmp/rebuilt", "/tmp/rebuilt/program");
    let put = |file: &Path, place: &str| {
        fleet.on("control", &format!("mkdir -p {folder} && cp '{}' {place}", file.display())).expect_code(0);
    };
    for (hops, path) in
        [(&["h1"][..], "ssh:h1"), (&["sudo:nobody"], "sudo:nobody"), (&["local", "local"], "local -> local")]
    {
        put(program, place);
        let words: Vec<&str> = ["replaced"].iter().chain(hops).copied().collect();
        let done = fleet.calls_of(&tag, Path::new(place), &words).run();
        works(&done);
        let masters = |now| [format!("{now}, before: "), format!("{now}, since: ")];
        for now in ["replaced", "removed"].into_iter().flat_map(masters) {
            assert!(done.out().contains(&format!("{now}called in {path} -> worker\n")), "{now}{done}");
            // Its own name, and not what the system calls a file that is gone.
            let beside = format!("; {place}-{other} is not there; ");
            assert!(done.out().lines().any(|line| line.starts_with(&now) && line.contains(&beside)), "{now}{done}");
        }
        assert_eq!(fleet.on("control", &format!("ls {folder}")).out(), "", "it was not removed: {done}");
    }
    // As `cargo run` makes one: it needs this machine's libraries, and nobody knows of which build the file beside it is.
    put(product::calls_of_this_machine(), place);
    put(program, &format!("{place}-{arch}"));
    let done = fleet.calls_of(&tag, Path::new(place), &["chain", "h1"]).run();
    done.expect_code(1);
    let refused = format!("failed: no image of this program for {arch}: ");
    assert!(done.out().starts_with(&refused) && done.out().trim_end().ends_with(" (on ssh:h1)"), "{done}");
    let beside =
        format!("; {place}-{arch} is another file than this program, which has no stamp to know its build by; ");
    assert!(done.out().contains(&beside), "{done}");
    assert!(done.out().contains("; the program itself, for ") && done.out().contains(", is not static"), "{done}");
    assert!(done.err().contains(&format!("build it with `cargo offshoot build --triple {arch}`")), "{done}");
    fleet.on("control", &format!("rm -r {folder}")).expect_code(0);
    tag.assert_nothing_left(GONE);
}

#[test]
fn an_image_goes_over_a_link_once_however_many_contexts_behind_it_are_called_at_once() {
    let name = "an_image_goes_over_a_link_once_however_many_contexts_behind_it_are_called_at_once";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("economy");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let image = std::fs::metadata(or_not_run!(name, product::calls())).expect("the program").len();
    // The second run finds nothing: what the first brought was in memory, and is gone.
    for _ in 0..2 {
        let run = or_not_run!(name, fleet.calls(&tag, &["economy", "h1", "50", "20"]));
        let done = run.deadline(Duration::from_secs(180)).run();
        works(&done);
        let bastion = stats(&done, "bastion");
        assert_eq!((bastion["asked"], bastion["bytes_in"]), (1, image + 8), "{done}");
        assert_eq!((bastion["requests"], bastion["refused"]), (50, 0), "{done}");
        // The one that asked first neither found it nor found it on its way.
        assert_eq!(bastion["hits"] + bastion["joined"], 49, "{done}");
        assert_eq!((bastion["bytes_out"], bastion["kept"]), (50 * (image + 8), image), "{done}");
        let master = stats(&done, "master");
        assert_eq!((master["requests"], master["bytes_out"]), (1, image + 8), "{done}");
        assert_eq!(master["kept"], 0, "what can be read again takes no memory: {done}");
        // And so says the link itself, with all that connecting and calling took.
        let came = numbers(&done, "link", "came")["came"];
        assert!(came > image && came < image + image / 10, "{came} bytes came for an image of {image}: {done}");
        println!("{}", done.out());
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_preloaded_image_is_not_asked_for_by_the_first_call() {
    let name = "a_preloaded_image_is_not_asked_for_by_the_first_call";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("preload");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let image = std::fs::metadata(or_not_run!(name, product::calls())).expect("the program").len();
    let done = or_not_run!(name, fleet.calls(&tag, &["preload", "h1", "5"])).run();
    works(&done);
    let (before, after) = (stats(&done, "preloaded"), stats(&done, "called"));
    assert_eq!((before["asked"], before["requests"]), (1, 5), "{done}");
    assert_eq!(before, after, "{done}");
    let link = numbers(&done, "link", "came");
    assert!(link["came"] > image && link["came"] < image + image / 10, "an image of {image}: {done}");
    assert!(link["later"] < image / 10, "an image of {image}: {done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_worker_that_is_lost_is_started_again_from_what_is_there() {
    let name = "a_worker_that_is_lost_is_started_again_from_what_is_there";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("crash");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let done = or_not_run!(name, fleet.calls(&tag, &["crash", "h1"])).run();
    works(&done);
    assert!(done.out().contains("lost: PeerLost(Signalled(6)); another process: true"), "{done}");
    assert!(done.out().contains("fetched again: false"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_link_that_is_cut_while_an_image_is_on_it_ends_every_call_that_waits() {
    let name = "a_link_that_is_cut_while_an_image_is_on_it_ends_every_call_that_waits";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("cut");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let _relay = or_not_run!(name, fleet.relay("h1", "slow", Duration::from_millis(150)));
    // The ssh of this master alone.
    let script = "kill -9 $(ps -o pid=,comm= --ppid $PPID | sed -n 's/ssh$//p')";
    let done = or_not_run!(name, fleet.calls(&tag, &["cut", "slow", script])).deadline(Duration::from_secs(120)).run();
    works(&done);
    println!("{}", done.out());
    assert!(done.out().contains("on its way: true of it, not all: true\n"), "{done}");
    assert_eq!(done.out().matches("\nended: PeerLost(").count(), 20, "{done}");
    assert_eq!(done.out().matches(") NotSent\n").count(), 20, "{done}");
    assert!(done.out().contains("\nlater: Err((NoRoute, NotSent))\n"), "{done}");
    // It is at once; asserted is three times what everything may take to be gone.
    let took = numbers(&done, "all", "after_ms")["after_ms"];
    assert!(took < 3 * 2000, "{done}");
    tag.assert_nothing_left(GONE);
}

/// The agent itself says something too, wherever it runs, and says it under its own name.
#[test]
fn records_of_an_agent_on_a_host_and_behind_sudo_arrive_under_its_name() {
    let name = "records_of_an_agent_on_a_host_and_behind_sudo_arrive_under_its_name";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("logs");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    for (hops, speaker) in [
        (&["h1"][..], "ssh:h1"),
        (&["h1", "sudo:nobody"], "ssh:h1/sudo:nobody"),
        (&["h1", "h2", "sudo:nobody"], "ssh:h1/ssh:h2/sudo:nobody"),
    ] {
        let words: Vec<&str> = ["logs"].iter().chain(hops).copied().collect();
        let done = or_not_run!(name, fleet.calls(&tag, &words)).run();
        works(&done);
        assert!(done.out().contains("both came: true\n"), "{done}");
        let agent = format!("\nDEBUG ctx.{speaker}::offshoot_connect::engine local: connected in ");
        assert!(done.out().contains(&agent), "{done}");
        let function = format!("\nINFO ctx.{speaker}::offshoot_calls a function says\n");
        assert!(done.out().contains(&function), "{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_storm_of_records_from_a_host_delays_no_call_and_every_record_is_here_or_counted() {
    let name = "a_storm_of_records_from_a_host_delays_no_call_and_every_record_is_here_or_counted";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("storm");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let run = or_not_run!(name, fleet.calls(&tag, &["storm", "h1", "1000000"]));
    let done = run.deadline(Duration::from_secs(120)).run();
    works(&done);
    println!("{}", done.out());
    let storm = numbers(&done, "storm", "records");
    assert_eq!(storm["here"] + storm["lost"], storm["records"], "{done}");
    assert!(storm["calls"] > 0 && storm["lost"] > 0, "it was no storm: {done}");
    // The promise is 5 × idle + 50 ms; asserted is three times that.
    assert!(storm["beside_us"] <= 3 * (5 * storm["idle_us"] + 50_000), "{done}");
    // Nor does any one of them wait for the end of it, which is seconds away.
    assert!(storm["longest_us"] < 2_000_000, "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_mebibyte_without_an_end_of_line_comes_whole_from_a_host() {
    let name = "a_mebibyte_without_an_end_of_line_comes_whole_from_a_host";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("line");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let done = or_not_run!(name, fleet.calls(&tag, &["unterminated", "h1", "1048576"])).run();
    works(&done);
    println!("{}", done.out());
    let line = numbers(&done, "unterminated", "written");
    assert_eq!((line["written"], line["here"], line["same"]), (1 << 20, 1 << 20, 1), "{done}");
    // In parts that any logger takes, and nobody waits for it.
    assert!(line["part"] == 8192 && line["longest_us"] < 2_000_000, "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn contexts_channels_and_files_that_were_handed_over_work_from_host_to_host() {
    let name = "contexts_channels_and_files_that_were_handed_over_work_from_host_to_host";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("lent");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let run = or_not_run!(name, fleet.calls(&tag, &["lent", "h1", "h2"]));
    let done = run.deadline(Duration::from_secs(120)).run();
    works(&done);
    println!("{}", done.out());
    for (from, to) in [("ssh:h1", "ssh:h2"), ("ssh:h1", "ssh:h1 -> ssh:h2"), ("ssh:h1 -> ssh:h2", "ssh:h2")] {
        let lines = [
            format!("called as user 0 in {to} -> worker"),
            "ran: of a command".to_owned(),
            format!("connected {to} -> local -> worker"),
            "heard the master".to_owned(),
            "read 20, now \"a file of the master, read there\"".to_owned(),
        ];
        let expected: Vec<String> = lines.iter().map(|line| format!("{from} to {to}: {line}")).collect();
        let head = format!("{from} to {to}: ");
        let text = done.out();
        let came: Vec<&str> = text.lines().filter(|line| line.starts_with(&head)).collect();
        assert_eq!(came, expected, "{done}");
    }
    for host in ["h1", "h2"] {
        assert!(done.out().contains(&format!("ssh:{host}: its file has ")), "{done}");
    }
    assert_eq!(done.out().matches(" bytes, the same: true").count(), 2, "{done}");
    tag.assert_nothing_left(GONE);
}
