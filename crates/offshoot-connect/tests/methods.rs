//! What the methods compile to: the argument lists, and the rules that hold for each of them (S17, S18).

use std::process::Command;
use std::time::Duration;

use offshoot_connect::methods::{Doas, Hop, KnownHosts, Local, Method, OptionProblem, RecipeError, Ssh, Su, Sudo};
use offshoot_connect::{NameError, Target};
use offshoot_wire::{Limits, Recipe, Start, encode};
use proptest::prelude::*;

fn argv(ssh: &Ssh) -> Vec<String> {
    match ssh.recipe().expect("a recipe").start {
        Start::Shell { argv, .. } => argv,
        Start::Local | Start::Worker { .. } => panic!("ssh became local"),
    }
}

/// The argument list on one line, the probe as `PROBE`.
fn line(ssh: &Ssh) -> String {
    argv(ssh).join(" ").replace(Start::PROBE, "PROBE")
}

fn problem(ssh: &Ssh) -> (&'static str, OptionProblem) {
    let RecipeError { option, problem, .. } = ssh.recipe().expect_err("a refusal");
    (option, problem)
}

const FORCED: &str = "ssh -T -a -x -o RemoteCommand=none -o RequestTTY=no -o ClearAllForwardings=yes \
                      -o PermitLocalCommand=no -o ControlMaster=no -o ControlPersist=no -o EscapeChar=none -o Tunnel=no \
                      -o UpdateHostKeys=no";

#[test]
fn a_plain_login_is_this_argument_list() {
    assert_eq!(
        line(&Ssh::to("web1")),
        format!("{FORCED} -o ConnectTimeout=9 -o Compression=no -o BatchMode=yes -o LogLevel=INFO -- web1 PROBE")
    );
}

#[test]
fn every_option_has_its_place_before_the_host_and_after_what_is_forced() {
    let ssh = Ssh::to("ann@web1:2222")
        .config("/etc/fleet/ssh_config")
        .identity("~/.ssh/ops")
        .identity("/keys/two")
        .option("ProxyJump=bastion")
        .option("AddressFamily inet")
        .known_hosts(KnownHosts::AcceptNew)
        .keepalive(Duration::from_secs(20))
        .compression(true)
        .connect_timeout(Duration::from_secs(5))
        .batch(false)
        .program("/opt/ssh/bin/ssh");
    assert_eq!(
        line(&ssh),
        format!(
            "/opt/ssh/bin/{FORCED} -F /etc/fleet/ssh_config -l ann -p 2222 -i ~/.ssh/ops -i /keys/two \
             -o ProxyJump=bastion -o AddressFamily inet -o StrictHostKeyChecking=accept-new -o ConnectTimeout=4 \
             -o Compression=yes -o ServerAliveInterval=20 -o ServerAliveCountMax=3 -o LogLevel=INFO -- web1 PROBE"
        )
    );
    assert!(line(&Ssh::to("[fe80::1%eth0]:22")).ends_with(" -- fe80::1%eth0 PROBE"));
    assert!(line(&Ssh::to("a").known_hosts(KnownHosts::Strict)).contains(" -o StrictHostKeyChecking=yes "));
    assert!(line(&Ssh::to("a").known_hosts(KnownHosts::Off)).contains(" -o UserKnownHostsFile=/dev/null "));
}

#[test]
fn recipes_carry_names_deadlines_and_the_triple() {
    let recipe = Ssh::to("web1")
        .user("ann")
        .port(2222)
        .triple("x86_64-unknown-linux-musl")
        .connect_timeout(Duration::from_secs(60))
        .stage_timeout(Duration::from_secs(20))
        .recipe()
        .expect("a recipe");
    assert_eq!(recipe.default_name(), "ssh:ann@web1:2222");
    assert_eq!((recipe.deadline_ms, recipe.stage_ms), (60_000, 20_000));
    assert_eq!(recipe.triple.as_deref(), Some("x86_64-unknown-linux-musl"));
    let local = Recipe::from(Local::new().connect_timeout(Duration::from_secs(3)));
    assert_eq!((local.default_name().as_str(), local.deadline_ms, local.start), ("local", 3_000, Start::Local));
}

#[test]
fn a_recipe_fits_a_frame_with_room_to_spare() {
    let recipe = Ssh::to("web1").recipe().expect("a recipe");
    let size = offshoot_wire::encode(&recipe).len();
    assert!(size < 8 * 1024, "a recipe of {size} bytes");
}

#[test]
fn s17_no_host_user_or_value_can_be_read_as_an_option_or_carry_control_characters() {
    assert_eq!(problem(&Ssh::to("-oProxyCommand=id")), ("host", NameError::Option.into()));
    assert_eq!(problem(&Ssh::to("-l@web1")), ("user", NameError::Option.into()));
    assert_eq!(problem(&Ssh::to("web1").user("-lroot")), ("user", NameError::Option.into()));
    assert_eq!(problem(&Ssh::to("web1").user("")), ("user", NameError::Empty.into()));
    assert_eq!(problem(&Ssh::to("")), ("host", NameError::Empty.into()));
    assert_eq!(problem(&Ssh::to("web1\n-v")), ("host", NameError::Character('\n').into()));
    assert_eq!(problem(&Ssh::to("a`id`")), ("host", NameError::Character('`').into()));
    assert_eq!(problem(&Ssh::to("web1").user("$(id)")), ("user", NameError::Character('$').into()));
    assert_eq!(problem(&Ssh::to("web1").port(0)), ("port", OptionProblem::Port));
    assert_eq!(problem(&Ssh::to("web1:+22")), ("port", OptionProblem::Port));
    assert_eq!(problem(&Ssh::to("web1").identity("-F/etc/x")), ("identity", NameError::Option.into()));
    assert_eq!(
        problem(&Ssh::to("web1").config("a\u{1b}b")),
        ("configuration file", NameError::Character('\u{1b}').into())
    );
    assert_eq!(problem(&Ssh::to("web1").program("")), ("program", NameError::Empty.into()));
    assert_eq!(problem(&Ssh::to("web1").triple("x y")), ("triple", NameError::Character(' ').into()));
    assert_eq!(problem(&Ssh::to("h".repeat(256))), ("host", NameError::TooLong(256).into()));
    // The host alone would fit, the context's name would not.
    assert_eq!(problem(&Ssh::to("h".repeat(255))), ("host", NameError::TooLong(255).into()));
    assert!(Ssh::to("h".repeat(Limits::NAME - 4)).recipe().is_ok());
    assert_eq!(
        problem(&(0..65).fold(Ssh::to("a"), |ssh, _| ssh.option("A=b"))),
        ("options", OptionProblem::TooMany(64))
    );
    assert_eq!(
        problem(&(0..17).fold(Ssh::to("a"), |ssh, _| ssh.identity("k"))),
        ("identities", OptionProblem::TooMany(16))
    );
}

#[test]
fn s17_no_argument_of_a_recipe_is_handed_to_a_shell_of_ours() {
    // The tool is started directly: its name is the first argument, and no other one is a shell's.
    let argv = argv(&Ssh::to("web1"));
    assert_eq!(argv[0], "ssh");
    assert!(!argv.iter().any(|arg| arg == "-c" || arg.ends_with("/sh") || arg == "sh"), "{argv:?}");
}

#[test]
fn s18_forwarding_local_commands_and_whatever_is_forced_cannot_be_asked_for() {
    for option in [
        "ForwardAgent=yes",
        "forwardx11 yes",
        "ForwardX11Trusted=yes",
        "LocalForward=1:a:1",
        "RemoteForward=1:a:1",
        "DynamicForward=1080",
        "LocalCommand=id",
        "PermitLocalCommand=yes",
        "RemoteCommand=id",
        "RequestTTY=force",
        "CLEARALLFORWARDINGS=no",
        "ControlMaster=auto",
        "ControlPersist=yes",
        "EscapeChar=~",
        "Tunnel=yes",
        "StdinNull=yes",
        "SessionType=none",
        "ForkAfterAuthentication=yes",
    ] {
        assert_eq!(problem(&Ssh::to("web1").option(option)), ("option", OptionProblem::Forced), "{option}");
    }
    for option in ["", "=x", "User", "User=", "a-b=c", "-oX=y", "User=a\nForwardAgent=yes"] {
        assert!(Ssh::to("web1").option(option).recipe().is_err(), "{option:?}");
    }
}

/// What a real ssh makes of the argument list under a configuration that asks for everything that is forbidden.
#[test]
fn s18_a_hostile_configuration_turns_nothing_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config");
    std::fs::write(
        &config,
        "Host *\nForwardAgent yes\nForwardX11 yes\nForwardX11Trusted yes\nLocalForward 9 h:9\nRemoteForward 9 h:9\n\
         DynamicForward 9\nPermitLocalCommand yes\nLocalCommand id\nRemoteCommand id\nRequestTTY force\n\
         ControlMaster auto\nControlPersist yes\nControlPath /tmp/x\nTunnel yes\nEscapeChar ~\nCompression yes\n\
         BatchMode no\nLogLevel QUIET\nUpdateHostKeys yes\n",
    )
    .expect("written");
    let mut args = argv(&Ssh::to("web1").config(config.to_str().expect("a plain path")));
    // `-G` prints the configuration that would be used, and connects to nothing.
    args.insert(1, "-G".to_owned());
    let output = match Command::new("ssh").args(&args[1..]).output() {
        Ok(output) => output,
        Err(error) => {
            println!("not run: s18_a_hostile_configuration_turns_nothing_on: no ssh here ({error})");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let used = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap_or("(unset)");
    for (key, expected) in [
        ("forwardagent", "no"),
        ("forwardx11", "no"),
        ("clearallforwardings", "yes"),
        ("permitlocalcommand", "no"),
        ("requesttty", "false"),
        ("controlmaster", "false"),
        ("controlpersist", "no"),
        ("tunnel", "false"),
        ("escapechar", "none"),
        ("compression", "no"),
        ("batchmode", "yes"),
        ("loglevel", "info"),
        ("updatehostkeys", "false"),
        ("stricthostkeychecking", "ask"),
        ("localforward", "(unset)"),
        ("remoteforward", "(unset)"),
        ("dynamicforward", "(unset)"),
    ] {
        assert_eq!(used(key), expected, "{key} in\n{text}");
    }
}

#[test]
fn foreign_text_in_an_error_is_escaped() {
    let error = Ssh::to("web\u{1b}[31m").recipe().expect_err("a refusal").to_string();
    assert_eq!(error, "ssh: the host `web\\x1b[31m`: holds '\\u{1b}'");
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9_][a-z0-9._+-]{0,20}",
        Just("local".to_owned()),
        Just("docker".to_owned()),
        any::<std::net::Ipv6Addr>().prop_map(|address| format!("[{address}]")),
    ]
}

fn hop() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("local".to_owned()),
        (prop::option::of("[a-zA-Z0-9._][a-zA-Z0-9._@+-]{0,10}"), host(), prop::option::of(1..=u16::MAX)).prop_map(
            |(user, host, port)| {
                let user = user.map_or(String::new(), |user| format!("{user}@"));
                let port = port.map_or(String::new(), |port| format!(":{port}"));
                format!("ssh:{user}{host}{port}")
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_canonical_text_of_a_target_parses_to_the_same_target(hops in prop::collection::vec(hop(), 1..8)) {
        let target: Target = hops.join("/").parse().expect("built from valid hops");
        let again: Target = target.to_string().parse().expect("canonical");
        prop_assert_eq!(&again, &target);
        prop_assert_eq!(again.to_string(), target.to_string());
        for (hop, text) in target.hops().iter().zip(&hops) {
            prop_assert_eq!(matches!(hop, Hop::Local(_)), text == "local");
            let recipe = hop.recipe();
            prop_assert!(recipe.is_ok(), "{:?}", recipe);
        }
    }

    #[test]
    fn any_text_is_a_target_whose_recipes_are_safe_or_an_error_without_control_characters(text in "(\\PC|[@:/\\[\\]-]|\u{0}|\n|web1|::1){0,40}") {
        match text.parse::<Target>() {
            Ok(target) => for hop in target.hops() {
                if let Ok(Recipe { start: Start::Shell { argv, .. }, .. }) = hop.recipe() {
                    let end = argv.iter().position(|arg| arg == "--").expect("an end of options");
                    prop_assert_eq!(argv.len(), end + 3);
                    prop_assert!(!argv[end + 1].starts_with('-'));
                    prop_assert!(argv[..end + 2].iter().all(|arg| arg.chars().all(|c| !c.is_control())));
                }
            },
            Err(error) => {
                prop_assert!(error.to_string().chars().all(|c| !c.is_control()), "{}", error);
                prop_assert!(text.is_char_boundary(error.span.0) && text.is_char_boundary(error.span.1));
            }
        }
    }
}

/// The argument list of a method on one line, with names for its places.
fn words(method: &dyn Method) -> String {
    let Start::Shell { argv, .. } = method.recipe().expect("a recipe").start else { panic!("it has no tool") };
    let places = [
        (Start::PROBE, "PROBE"),
        (Start::SCRIPT, "SCRIPT"),
        (Start::ROOT_SCRIPT, "ROOT"),
        (Start::PLAIN_SCRIPT, "PLAIN"),
        (Start::TOKEN, "TOKEN"),
    ];
    places.iter().fold(argv.join(" "), |line, (place, name)| line.replace(place, name))
}

#[test]
fn ways_to_another_user_are_these_argument_lists() {
    for (method, expected) in [
        (&Sudo::to("root") as &dyn Method, "sudo -p TOKEN %p: -u root -n -- /bin/sh -c ROOT"),
        (&Sudo::to("root").password("x"), "sudo -p TOKEN %p: -u root -- /bin/sh -c ROOT"),
        (&Sudo::to("root").password("x").login(true), "sudo -p TOKEN %p: -u root -i -- /bin/sh -c PLAIN"),
        (&Sudo::to("#0").password("x"), "sudo -p TOKEN %p: -u #0 -- /bin/sh -c ROOT"),
        (
            &Sudo::to("#7").preserve_env(true).set_home(true).selinux_role("r").selinux_type("t").arg("--group=www"),
            "sudo -p TOKEN %p: -u #7 -n -E -H -r r -t t --group=www -- /bin/sh -c SCRIPT",
        ),
        (
            &Sudo::to("a").preserve_env_of(["A", "B_1"]),
            "sudo -p TOKEN %p: -u a -n --preserve-env=A,B_1 -- /bin/sh -c SCRIPT",
        ),
        (&Su::to("root"), "su root -c PROBE"),
        (&Su::to("root").login(true), "su - root -c PROBE"),
        (&Doas::to("root"), "doas -n -u root -- /bin/sh -c ROOT"),
        (&Doas::to("root").password("x"), "doas -u root -- /bin/sh -c ROOT"),
    ] {
        assert_eq!(words(method), expected);
    }
}

#[test]
fn s17_users_and_arguments_of_sudo_are_never_options_or_commands_of_their_own() {
    for user in ["", "-s", "root;id", "a b", "#-1", "#x", "$(id)", "a\nb"] {
        assert!(Sudo::to(user).recipe().is_err(), "{user:?}");
        assert!(Su::to(user).recipe().is_err() && Doas::to(user).recipe().is_err(), "{user:?}");
        assert!(format!("sudo:{user}").parse::<Hop>().is_err(), "{user:?}");
    }
    for arg in
        ["id", "-S", "--", "--stdin", "--std", "--prompt=x", "--askpass", "--login", "--shell", "--list", "--user=x"]
    {
        assert!(Sudo::to("root").arg(arg).recipe().is_err(), "{arg}");
    }
    for name in ["", "A=B", "1A", "A,B", "-x"] {
        assert!(Sudo::to("root").preserve_env_of([name]).recipe().is_err(), "{name:?}");
    }
}

#[test]
fn s19_no_secret_is_in_a_recipe_or_in_what_is_printed_of_a_method() {
    let secret = "hunter2 and more";
    let methods: [Box<dyn Method>; 4] = [
        Box::new(Ssh::to("web1").password(secret).password_of("a@b", secret).passphrase(secret)),
        Box::new(Sudo::to("root").password(secret)),
        Box::new(Su::to("root").password(secret)),
        Box::new(Doas::to("root").password(secret)),
    ];
    for method in methods {
        let recipe = method.recipe().expect("a recipe");
        assert!(recipe.prompts.is_some(), "{recipe:?}");
        assert!(!encode(&recipe).windows(7).any(|bytes| bytes == b"hunter2"));
        assert!(!format!("{recipe:?}{:?}", method.answers()).contains("hunter2"));
    }
    assert!(!format!("{:?}", Ssh::to("web1").password(secret)).contains("hunter2"));
    // A secret that no terminal passes on is refused, and not shown either.
    let error = Ssh::to("web1").password("hunter2\n").recipe().expect_err("a refusal");
    assert!(error.problem == OptionProblem::Secret && !error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn an_ssh_that_can_be_answered_may_ask_and_asks_once() {
    let line = line(&Ssh::to("web1").password("x"));
    assert!(line.contains("-o BatchMode=no -o NumberOfPasswordPrompts=1"), "{line}");
    assert!(!line.contains("BatchMode=yes"), "{line}");
}
